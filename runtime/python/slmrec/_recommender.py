"""The recommender."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np
import numpy.typing as npt

from slmrec import _batch, _library, _native
from slmrec._answers import (
    Engine,
    Item,
    PopularItem,
    Reason,
    Recommendations,
    Sample,
    SelfTest,
)
from slmrec._history_state import HistoryState, answer

if TYPE_CHECKING:
    from typing_extensions import Self

#: A history: item ids, oldest first. Integers are taken as ids, as in history files.
History = Iterable[str | int]


class Recommender:
    """An opened bundle with an engine: histories in, recommendations out.

    It can be used from several threads; their calls take turns, and the interpreter is free while
    one runs. For more than one call at a time, open one for each thread or process.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        library: str | os.PathLike[str] | None = None,
        threads: int = 1,
        provider: Literal["auto", "cpu", "cuda", "coreml", "xnnpack"] = "auto",
        prior: bool = True,
    ) -> None:
        """Opens the bundle at `path`.

        Args:
            path: The bundle, a file like `student.slmrec`.
            library: ONNX Runtime's shared library; else that of the variable ``ORT_DYLIB_PATH``,
                else that of the installed package `onnxruntime`. A process loads one only.
            threads: Threads inside one inference and for the scan of a large catalog.
            provider: The execution provider; one that is asked for and not there is an error.
            prior: Whether the bundle's transition prior is added to the model's scores.

        Raises:
            BundleError: The file is not there, not a bundle, or damaged.
            EngineError: ONNX Runtime is not there, or does not run the bundle.
        """
        self._path = os.fspath(path)
        found = _library.find(library)
        _library.disable_telemetry()
        self._native = _native.Recommender(self._path, found, threads, provider, prior)

    def recommend(
        self,
        history: History,
        k: int = 10,
        *,
        block: Iterable[str | int] = (),
        allow: Iterable[str | int] | None = None,
        categories: Iterable[str] | None = None,
        block_categories: Iterable[str] = (),
        include_seen: bool = False,
    ) -> Recommendations:
        """The `k` best items for a history, best first.

        Args:
            history: Item ids, oldest first; those that the catalog does not have are skipped and
                named in the answer.
            k: Length of the list.
            block: Ids that are never recommended.
            allow: If given, only these ids are recommended.
            categories: If given, only items of at least one of these categories are recommended.
            block_categories: Items of one of these categories are never recommended.
            include_seen: Recommend items of the history again.

        Raises:
            HistoryError: The history is empty, or the catalog has none of its items.
        """
        filter = (block, allow, categories, block_categories, include_seen)
        return answer(self._native.recommend(history, k, filter))

    def recommend_batch(
        self,
        histories: object,
        k: int = 10,
        *,
        block: Iterable[str | int] = (),
        allow: Iterable[str | int] | None = None,
        categories: Iterable[str] | None = None,
        block_categories: Iterable[str] = (),
        include_seen: bool = False,
        on_error: Literal["raise", "empty"] = "raise",
    ) -> _batch.BatchRecommendations:
        """The `k` best items for each of many histories; the answers of :meth:`recommend`.

        Args:
            histories: Lists of item ids, or an Arrow column of lists of strings (or integers): a
                `pyarrow.ListArray`, a `pyarrow.ChunkedArray`, a table of one column, or another
                library's column that has Arrow's interface. A null is an empty history.
            k: Length of each list.
            block: Ids that are never recommended to anyone.
            allow: If given, only these ids are recommended.
            categories: If given, only items of at least one of these categories are recommended.
            block_categories: Items of one of these categories are never recommended.
            include_seen: Recommend items of a history again.
            on_error: What to do about a history that is empty or unknown: raise, or leave its list
                empty and name it in `failures`.

        Raises:
            HistoryError: A history is empty, or the catalog has none of its items, and `on_error`
                is ``"raise"``.
        """
        if on_error not in ("raise", "empty"):
            raise ValueError(f"on_error: expected raise or empty, found {on_error!r}")
        column = _batch.column_of(histories)
        filter = (block, allow, categories, block_categories, include_seen)
        if column is None:
            found = self._native.recommend_batch(histories, k, filter)
        else:
            found = self._native.recommend_column(*_batch.buffers_of(column), k, filter)
        batch = _batch.BatchRecommendations(found, k, lambda: self._titles)
        if on_error == "raise":
            for failure in batch.failures.values():
                raise failure
        return batch

    def score(self, history: History, ids: Iterable[str | int]) -> Recommendations:
        """Ranks the given items for a history, with the scores that :meth:`recommend` gives them.

        Seen items are ranked like others; an item that is named twice is ranked once.
        """
        return answer(self._native.score(history, ids))

    def explain(
        self,
        history: History,
        ids: Iterable[str | int],
        *,
        max_items: int = 16,
        max_reasons: int = 3,
    ) -> dict[str, list[Reason]]:
        """Why items are recommended: for each id, the items of the history without which its score
        would be lower, the strongest first.

        Args:
            history: Item ids, oldest first.
            ids: The items to explain, usually those of a list that was just made.
            max_items: Newest items of the history that are left out in turn.
            max_reasons: Longest list of reasons.
        """
        # A lone string is left for the native half to refuse.
        asked = ids if isinstance(ids, (str, bytes)) else list(ids)
        found = self._native.explain(history, asked, max_items, max_reasons)
        return {str(id): [Reason._make(row) for row in rows] for id, rows in zip(asked, found)}

    def popular(
        self,
        k: int = 10,
        *,
        block: Iterable[str | int] = (),
        allow: Iterable[str | int] | None = None,
        categories: Iterable[str] | None = None,
        block_categories: Iterable[str] = (),
    ) -> list[PopularItem]:
        """The `k` most popular items: an answer for a person without a usable history."""
        filter = (block, allow, categories, block_categories, False)
        return [PopularItem._make(row) for row in self._native.popular(k, filter)]

    def user_vector(self, history: History) -> npt.NDArray[np.float32]:
        """The user vector of a history, `[dim]`."""
        return np.array(self._native.user_vector(history), dtype=np.float32)

    def history_state(self, history: History = ()) -> HistoryState:
        """A history that grows, beginning with `history`, which may be empty."""
        return HistoryState(*self._native.history_state(history))

    def restore_history_state(self, data: bytes) -> HistoryState:
        """A state from what :meth:`HistoryState.to_bytes` has given; the bytes are not trusted.

        Raises:
            HistoryStateError: Anything but a state of this bundle.
        """
        return HistoryState(self._native.restore_history_state(data), [])

    def apply_pack(self, path: str | os.PathLike[str]) -> None:
        """Lets a pack of this bundle change the answers, from the next call on.

        Raises:
            BundleError: Not a pack of this bundle; the recommender is as before.
        """
        self._native.apply_pack(os.fspath(path))

    @cached_property
    def items(self) -> Sequence[Item]:
        """The catalog, in its order."""
        return tuple(map(Item._make, self._native.items()))

    @property
    def item_ids(self) -> list[str]:
        """The ids of the catalog, in its order."""
        return [item.id for item in self.items]

    def title(self, id: str | int) -> str | None:
        """An item's title; ``None`` where it has none.

        Raises:
            KeyError: The catalog does not have the item.
        """
        return self._titles[str(id)]

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What the bundle says about itself."""
        manifest: dict[str, Any] = json.loads(self._native.manifest())
        return manifest

    @property
    def engine(self) -> Engine:
        """What really runs."""
        return Engine(**self._native.engine())

    @property
    def has_prior(self) -> bool:
        """Whether a transition prior is added to the model's scores."""
        return self._native.has_prior()

    def self_test(self) -> SelfTest:
        """Replays the samples that the bundle carries: does this engine on this machine give what
        the full-precision reference gave at export?
        """
        found = self._native.self_test()
        samples = [Sample._make(sample) for sample in found["samples"]]
        return SelfTest(
            found["passed"],
            found["computed_by"],
            found["min_cosine"],
            found["min_overlap"],
            samples,
        )

    def close(self) -> None:
        """Lets go of bundle and engine; later calls raise :class:`ClosedError`."""
        self._native.close()

    @cached_property
    def _titles(self) -> dict[str, str | None]:
        return dict(self.items)

    def __len__(self) -> int:
        """Number of items of the catalog."""
        return len(self.items)

    def __contains__(self, id: object) -> bool:
        return str(id) in self._titles

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Recommender cannot be pickled; hint: pass the bundle's path and open one in each "
            "process"
        )

    def __repr__(self) -> str:
        return f"<Recommender {self._path!r}>"
