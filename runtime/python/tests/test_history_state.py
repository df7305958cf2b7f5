"""A history that grows."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from conftest import HISTORIES

import slmrec


def test_appending_gives_what_the_whole_history_gives(recommender: slmrec.Recommender) -> None:
    state = recommender.history_state()
    assert state.used_items == 0
    history: list[str] = []
    for id in HISTORIES[0]:
        assert state.append(id)
        history.append(id)
        whole = recommender.recommend(history, 5)
        found = state.recommend(5)
        assert [item.id for item in found] == [item.id for item in whole]
        assert [item.score for item in found] == pytest.approx(
            [item.score for item in whole], rel=1e-5, abs=1e-5
        )
    assert state.used_items == len(history)
    np.testing.assert_allclose(state.user_vector(), recommender.user_vector(history), atol=1e-5)
    assert state.recommend(5, allow=["item-9"], block=["item-9"]) == []


def test_unknown_items(recommender: slmrec.Recommender) -> None:
    state = recommender.history_state(["nonsense", "item-1", "nonsense"])
    assert state.unknown_items == ["nonsense"]
    assert state.used_items == 1
    assert not state.append("nonsense")
    assert state.used_items == 1
    with pytest.raises(slmrec.HistoryError):
        recommender.history_state().recommend()


def test_the_written_form_comes_back(bundles: Path, recommender: slmrec.Recommender) -> None:
    state = recommender.history_state(HISTORIES[0])
    data = state.to_bytes()
    with slmrec.Recommender(bundles / "fp32.slmrec") as another:
        restored = another.restore_history_state(data)
        assert restored.recommend() == state.recommend()
        assert restored.to_bytes() == data
    with slmrec.Recommender(bundles / "int8.slmrec") as another:
        with pytest.raises(slmrec.HistoryStateError, match="one of the bundle"):
            another.restore_history_state(data)
    row = json.loads(data)
    row["newest"] = [4_000_000]
    for wrong in (b"", b"{}", data[:-1], json.dumps(row).encode()):
        with pytest.raises(slmrec.HistoryStateError):
            recommender.restore_history_state(wrong)


def test_it_ends_with_its_recommender(bundles: Path) -> None:
    recommender = slmrec.Recommender(bundles / "fp32.slmrec")
    state = recommender.history_state(HISTORIES[0])
    recommender.close()
    for call in (state.recommend, state.to_bytes, lambda: state.append("item-1")):
        with pytest.raises(slmrec.ClosedError):
            call()


def test_it_cannot_be_pickled(recommender: slmrec.Recommender) -> None:
    with pytest.raises(TypeError, match="restore_history_state"):
        pickle.dumps(recommender.history_state())
