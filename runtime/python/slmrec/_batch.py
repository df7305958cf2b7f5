"""Many histories at once: Arrow columns in, Arrow columns and NumPy arrays out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from slmrec._answers import Recommendation
from slmrec._errors import HistoryError

if TYPE_CHECKING:
    import pyarrow as pa

    from slmrec import _native

class BatchRecommendations(Sequence[list[Recommendation]]):
    """The answers to a batch of histories, in their order.

    `batch[i]` is the list for history `i`; :attr:`ids` and :attr:`scores` are NumPy arrays over all
    of them, :meth:`to_arrow` gives columns.
    """

    #: Histories that have no answer (empty, or nothing in them is known), by their position; their
    #: lists are empty.
    failures: dict[int, HistoryError]

    def __init__(
        self, answers: _native.Answers, k: int, titles: Callable[[], Mapping[str, str | None]]
    ) -> None:
        """Made by :meth:`slmrec.Recommender.recommend_batch`."""
        self._lists = np.frombuffer(answers["lists"], np.int64)
        self._starts = np.frombuffer(answers["starts"], np.int64)
        self._text = answers["text"]
        self._scores = np.frombuffer(answers["scores"], np.float32)
        self._answers = answers
        self._titles = titles
        self._k = k
        self.failures = {
            row: HistoryError(f"histories[{row}]: {why}") for row, why in answers["failures"]
        }

    def __len__(self) -> int:
        return len(self._lists) - 1

    @overload
    def __getitem__(self, index: int) -> list[Recommendation]: ...
    @overload
    def __getitem__(self, index: slice) -> list[list[Recommendation]]: ...
    def __getitem__(
        self, index: int | slice
    ) -> list[Recommendation] | list[list[Recommendation]]:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        row, titles = range(len(self))[index], self._titles()
        places = range(int(self._lists[row]), int(self._lists[row + 1]))
        return [
            Recommendation(
                id := self._id(place),
                titles.get(id),
                float(self._scores[place]),
                rank,
            )
            for rank, place in enumerate(places, start=1)
        ]

    @property
    def counts(self) -> npt.NDArray[np.int64]:
        """How many items each history's list has, `[histories]`."""
        return np.diff(self._lists)

    @property
    def ids(self) -> npt.NDArray[np.object_]:
        """Ids, best first, `[histories, k]`; ``None`` where a list is shorter."""
        whole = np.full((len(self), self._k), None, dtype=np.object_)
        whole[self._filled()] = [self._id(place) for place in range(len(self._scores))]
        return whole

    @property
    def scores(self) -> npt.NDArray[np.float32]:
        """Scores, best first, `[histories, k]`; NaN where a list is shorter."""
        whole = np.full((len(self), self._k), np.nan, dtype=np.float32)
        whole[self._filled()] = self._scores
        return whole

    def to_arrow(self) -> pa.Table:
        """The columns `items` (lists of strings) and `scores` (lists of floats), best first.

        A history without an answer has an empty list.
        """
        import pyarrow as pa

        offsets = pa.py_buffer(self._answers["lists"])
        ids = pa.LargeStringArray.from_buffers(
            len(self._scores), pa.py_buffer(self._answers["starts"]), pa.py_buffer(self._text)
        )
        scores = pa.Array.from_buffers(
            pa.float32(), len(self._scores), [None, pa.py_buffer(self._answers["scores"])]
        )

        def lists(values: Any, kind: Any) -> Any:
            wide = pa.LargeListArray.from_buffers(
                pa.large_list(values.type), len(self), [None, offsets], children=[values]
            )
            return wide.cast(pa.list_(kind))

        columns = {"items": lists(ids, pa.string()), "scores": lists(scores, pa.float32())}
        return pa.table(columns)

    def _id(self, place: int) -> str:
        return self._text[self._starts[place] : self._starts[place + 1]].decode()

    def _filled(self) -> npt.NDArray[np.bool_]:
        """Which places of `[histories, k]` have an item."""
        filled: npt.NDArray[np.bool_] = np.arange(self._k) < self.counts[:, np.newaxis]
        return filled

    def __repr__(self) -> str:
        return f"<BatchRecommendations of {len(self)} histories, {len(self._scores)} items>"


def column_of(histories: object) -> Any | None:
    """The Arrow column that `histories` is; ``None`` for what is no Arrow column.

    Raises:
        TypeError: A table of several columns.
    """
    # Arrow's own interface, which other libraries' columns have, too.
    if not any(hasattr(histories, f"__arrow_c_{kind}__") for kind in ("array", "stream")):
        return None
    import pyarrow as pa

    if isinstance(histories, (pa.Table, pa.RecordBatch)):
        if histories.num_columns != 1:
            raise TypeError(
                "histories: expected a column, found a table with the columns "
                f"{', '.join(histories.column_names)}; hint: table['history']"
            )
        return histories.column(0)
    if isinstance(histories, (pa.Array, pa.ChunkedArray)):
        return histories
    return pa.chunked_array(histories) if hasattr(histories, "__arrow_c_stream__") else pa.array(
        histories
    )


def buffers_of(column: Any) -> tuple[bytes, bytes, bytes]:
    """The buffers of a column of lists of ids: offsets of lists and of ids, and the ids' bytes.

    Raises:
        TypeError: Another type of column.
        ValueError: An id that is null.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        # Offsets of 64 bits, so that chunks of any number fit into one.
        wide = column.cast(pa.large_list(pa.large_string()))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise TypeError(
            f"histories: expected a column of lists of strings, found {column.type}"
        ) from error
    if isinstance(wide, pa.ChunkedArray):
        wide = wide.combine_chunks()
    values = wide.flatten()
    if values.null_count:
        raise ValueError("histories: expected ids, found a null among them")
    lengths = pc.fill_null(pc.list_value_length(wide), 0).to_numpy(zero_copy_only=False)
    lists = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
    if len(values) == 0:
        return lists.tobytes(), np.zeros(1, np.int64).tobytes(), b""
    _, offsets, text = values.buffers()
    starts = np.frombuffer(offsets, np.int64)[values.offset : values.offset + len(values) + 1]
    return lists.tobytes(), starts.tobytes(), b"" if text is None else text.to_pybytes()
