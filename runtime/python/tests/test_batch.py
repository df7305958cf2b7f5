"""Many histories: a batch gives what single calls give, from lists and from every Arrow column."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from conftest import HISTORIES

import slmrec

#: More than one pass over the catalog takes.
MANY = [HISTORIES[i % len(HISTORIES)] for i in range(300)]


def single(recommender: slmrec.Recommender, k: int) -> list[list[slmrec.Recommendation]]:
    return [list(recommender.recommend(history, k)) for history in HISTORIES]


def columns() -> dict[str, Any]:
    plain = pa.array(HISTORIES)
    chunked = pa.chunked_array([plain[:1], plain[1:1], plain[1:]])
    return {
        "list": plain,
        "large": plain.cast(pa.large_list(pa.large_string())),
        "chunked": chunked,
        "sliced": pa.array([["item-5"], *HISTORIES, ["item-6"]])[1:-1],
        "chunk of slices": pa.chunked_array([pa.array([["item-5"], *HISTORIES])[1:]]),
        "table": pa.table({"history": chunked}),
        "record batch": pa.record_batch({"history": plain}),
    }


@pytest.mark.parametrize("form", columns())
def test_a_column_gives_what_single_calls_give(
    recommender: slmrec.Recommender, form: str
) -> None:
    batch = recommender.recommend_batch(columns()[form], 5)
    assert list(batch) == single(recommender, 5)


def test_lists_give_what_single_calls_give(recommender: slmrec.Recommender) -> None:
    expected = single(recommender, 5)
    for histories in (HISTORIES, tuple(HISTORIES), iter(HISTORIES), np.array(HISTORIES, object)):
        assert list(recommender.recommend_batch(histories, 5)) == expected
    many = recommender.recommend_batch(MANY, 5)
    assert len(many) == len(MANY)
    assert list(many) == [expected[i % len(HISTORIES)] for i in range(len(MANY))]
    assert many[-1] == expected[(len(MANY) - 1) % len(HISTORIES)]
    assert many[1:3] == expected[1:3]
    with pytest.raises(IndexError):
        many[len(MANY)]


def test_arrays_and_columns_say_the_same(recommender: slmrec.Recommender) -> None:
    allow = [f"item-{i}" for i in range(1, 5)]
    batch = recommender.recommend_batch(MANY, 3, allow=allow)
    assert batch.ids.shape == batch.scores.shape == (len(MANY), 3)
    assert batch.scores.dtype == np.float32
    assert batch.counts.min() < 3, "some lists are short"
    table = batch.to_arrow()
    table.validate(full=True)
    assert table.schema == pa.schema(
        {"items": pa.list_(pa.string()), "scores": pa.list_(pa.float32())}
    )
    items, scores = table["items"].to_pylist(), table["scores"].to_pylist()
    for row, answers in enumerate(batch):
        count = batch.counts[row]
        assert [item.id for item in answers] == items[row] == list(batch.ids[row, :count])
        assert [item.score for item in answers] == scores[row]
        assert np.array_equal(batch.scores[row, :count], np.array(scores[row], np.float32))
        assert all(id is None for id in batch.ids[row, count:])
        assert np.isnan(batch.scores[row, count:]).all()


def test_columns_of_integers_and_of_nothing(recommender: slmrec.Recommender) -> None:
    numbers = recommender.recommend_batch(pa.array([[1, 2], [3]]), on_error="empty")
    assert len(numbers) == 2
    assert list(numbers.failures) == [0, 1]
    for nothing in ([], pa.array([], pa.list_(pa.string())), pa.chunked_array([], pa.list_(pa.string()))):
        batch = recommender.recommend_batch(nothing)
        assert len(batch) == 0
        assert batch.ids.shape == (0, 10)
        assert batch.to_arrow().num_rows == 0


def test_a_history_without_an_answer(recommender: slmrec.Recommender) -> None:
    histories = [HISTORIES[0], [], ["nonsense"], HISTORIES[1]]
    arrow = pa.array([HISTORIES[0], None, ["nonsense"], HISTORIES[1]])
    for given in (histories, arrow):
        with pytest.raises(slmrec.HistoryError, match=r"histories\[1\]: the history is empty"):
            recommender.recommend_batch(given)
        batch = recommender.recommend_batch(given, 5, on_error="empty")
        assert list(batch.failures) == [1, 2]
        assert "nonsense" in str(batch.failures[2])
        assert [len(answers) for answers in batch] == [5, 0, 0, 5]
        assert batch[3] == recommender.recommend(HISTORIES[1], 5)
        assert batch.to_arrow()["items"].to_pylist()[1] == []


def test_what_is_no_column_of_histories(recommender: slmrec.Recommender) -> None:
    two = pa.table({"user": ["a"], "history": [["item-1"]]})
    for wrong, message in [
        (two, "user, history"),
        (pa.array(["item-1"]), "found string"),
        (pa.array([1.5]), "found double"),
        ("item-1", "one string"),
        (["item-1"], r"histories\[0\]: expected a list of item ids, found one string"),
        ([[1.5]], r"histories\[0\]\[0\]: expected a string or an integer, found float"),
        (3, "not iterable"),
    ]:
        with pytest.raises(TypeError, match=message):
            recommender.recommend_batch(wrong)
    with pytest.raises(ValueError, match="null"):
        recommender.recommend_batch(pa.array([["item-1", None]]))
    with pytest.raises(ValueError, match="on_error"):
        recommender.recommend_batch([], on_error="ignore")  # type: ignore[arg-type]


def test_buffers_that_do_not_fit_are_refused(recommender: slmrec.Recommender) -> None:
    def offsets(*values: int) -> bytes:
        return np.array(values, np.int64).tobytes()

    good = (offsets(0, 1), offsets(0, 6), b"item-1")
    ask = recommender._native.recommend_column
    assert len(ask(*good, 5, ((), None, None, (), False))["scores"]) == 5 * 4
    for lists, starts, text in [
        (b"", *good[1:]),
        (offsets(0, 2), *good[1:]),
        (offsets(1, 0), *good[1:]),
        (offsets(-1, 1), *good[1:]),
        (offsets(0, 1)[:-1], *good[1:]),
        (good[0], offsets(0, 7), good[2]),
        (good[0], offsets(0), good[2]),
        (good[0], good[1], b"item-\xff"),
    ]:
        with pytest.raises(ValueError, match="expected a column"):
            ask(lists, starts, text, 5, ((), None, None, (), False))
