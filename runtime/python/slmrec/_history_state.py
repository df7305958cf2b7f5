"""A history that grows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import numpy.typing as npt

from slmrec._answers import Recommendation, Recommendations

if TYPE_CHECKING:
    from slmrec import _native


class HistoryState:
    """One person's history, with what the encoder has made of it: an appended item costs its own
    position, not the whole history.

    Made by :meth:`slmrec.Recommender.history_state`; it belongs to that recommender and is closed
    with it.
    """

    #: Ids of the first history that the catalog does not have, each once.
    unknown_items: list[str]

    def __init__(self, native: _native.HistoryState, unknown_items: list[str]) -> None:
        """Made by :meth:`slmrec.Recommender.history_state`."""
        self._native = native
        self.unknown_items = unknown_items

    def append(self, id: str | int) -> bool:
        """Appends an item that the person has just taken. Nothing runs before the next question.

        Returns:
            Whether the catalog has it; else nothing is changed.
        """
        return self._native.append(id)

    def recommend(
        self,
        k: int = 10,
        *,
        block: Iterable[str | int] = (),
        allow: Iterable[str | int] | None = None,
        categories: Iterable[str] | None = None,
        block_categories: Iterable[str] = (),
        include_seen: bool = False,
    ) -> Recommendations:
        """The `k` best items after all that was appended.

        The answer is that of :meth:`slmrec.Recommender.recommend` for the same history, within the
        rounding of an int8 graph.

        Raises:
            HistoryError: Nothing was appended yet.
        """
        filter = (block, allow, categories, block_categories, include_seen)
        return answer(self._native.recommend(k, filter))

    def user_vector(self) -> npt.NDArray[np.float32]:
        """The user vector after all that was appended, `[dim]`."""
        return np.array(self._native.user_vector(), dtype=np.float32)

    @property
    def used_items(self) -> int:
        """Number of items that the encoder reads: the newest known ones."""
        return self._native.used_items()

    def to_bytes(self) -> bytes:
        """The written form, for :meth:`slmrec.Recommender.restore_history_state`."""
        return bytes(self._native.to_bytes())

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a HistoryState cannot be pickled; hint: pickle to_bytes() and use "
            "restore_history_state of the other process's recommender"
        )


def answer(found: _native.Answer) -> Recommendations:
    """The list that a person gets."""
    return Recommendations(
        map(Recommendation._make, found["items"]),
        shortfall=found["shortfall"],
        used_items=found["used_items"],
        unknown_items=found["unknown_items"],
        unknown_asked=found["unknown_asked"],
        unknown_categories=found["unknown_categories"],
    )
