"""One history: the answers of `slmrec-run`, filters, scores, reasons, packs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import HISTORIES

import slmrec


def rows(items: list[slmrec.Recommendation]) -> list[tuple[Any, ...]]:
    return [(item.rank, item.id, item.title, np.float32(item.score)) for item in items]


def printed(found: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [
        (row["rank"], row["item"], row["title"], np.float32(row["score"])) for row in found
    ]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
@pytest.mark.parametrize("history", HISTORIES)
def test_the_answers_are_those_of_the_program(
    bundles: Path, run: Callable[..., Any], precision: str, history: list[str]
) -> None:
    bundle = bundles / f"{precision}.slmrec"
    result = run(bundle, history, "-k", "7")["results"][0]
    with slmrec.Recommender(bundle) as recommender:
        found = recommender.recommend(history, 7)
        assert rows(found) == printed(result["recommendations"])
        assert len(found) == 7
        assert found.unknown_items == result["unknown_items"]
        assert found.used_items == result["used_items"]


def test_filters_are_those_of_the_program(
    bundles: Path, run: Callable[..., Any], recommender: slmrec.Recommender
) -> None:
    bundle = bundles / "fp32.slmrec"
    options = ["--include-seen", "--allow", "item-1", "--allow", "item-5", "--block", "item-5"]
    result = run(bundle, HISTORIES[0], *options)["results"][0]
    found = recommender.recommend(
        HISTORIES[0],
        include_seen=True,
        allow=["item-1", "item-5", "item-99"],
        block=["item-5"],
    )
    assert rows(found) == printed(result["recommendations"])
    assert [item.id for item in found] == ["item-1"]
    assert found.shortfall == 9
    assert found.unknown_asked == ["item-99"]
    assert recommender.recommend(HISTORIES[0], allow=[]) == []
    seen = set(HISTORIES[0])
    assert not seen & {item.id for item in recommender.recommend(HISTORIES[0], 30)}


def test_categories(
    bundles: Path, run: Callable[..., Any], recommender: slmrec.Recommender
) -> None:
    # Rows that two divide are even, those that three divides third.
    def row(item: slmrec.Recommendation | slmrec.PopularItem) -> int:
        return int(item.id.removeprefix("item-"))

    bundle = bundles / "fp32.slmrec"
    options = ["-k", "30", "--category", "third", "--block-category", "even"]
    result = run(bundle, HISTORIES[0], *options)["results"][0]
    found = recommender.recommend(
        HISTORIES[0], 30, categories=["third"], block_categories=["even"]
    )
    assert rows(found) == printed(result["recommendations"])
    assert found and all(row(item) % 6 == 3 for item in found)
    assert found.shortfall == 30 - len(found) and found.unknown_categories == []
    seen = recommender.recommend(HISTORIES[0], 30, categories=["third"], include_seen=True)
    assert sorted(map(row, seen)) == list(range(3, 31, 3))
    blocked = recommender.recommend(HISTORIES[0], 30, block_categories=["even"])
    assert blocked and all(row(item) % 2 == 1 for item in blocked)
    unknown = recommender.recommend(HISTORIES[0], 30, categories=["Third", "nothing"])
    assert (unknown, unknown.shortfall) == ([], 30)
    assert unknown.unknown_categories == ["Third", "nothing"]
    batch = recommender.recommend_batch(HISTORIES[:1], 30, categories=["third"])
    assert [item.id for item in batch[0]] == [
        item.id for item in recommender.recommend(HISTORIES[0], 30, categories=["third"])
    ]
    state = recommender.history_state(HISTORIES[0])
    assert [item.id for item in state.recommend(30, categories=["third"])] == [
        item.id for item in batch[0]
    ]
    assert {row(item) % 3 for item in recommender.popular(30, categories=["third"])} == {0}


def test_scores_of_given_items(recommender: slmrec.Recommender) -> None:
    whole = recommender.recommend(HISTORIES[0], 30, include_seen=True)
    some = recommender.score(HISTORIES[0], ["item-9", "item-1", "item-9", "item-77"])
    of = {item.id: item.score for item in whole}
    assert {item.id for item in some} == {"item-9", "item-1"}
    assert [item.rank for item in some] == [1, 2]
    assert [item.score for item in some] == pytest.approx([of[item.id] for item in some])
    assert some.unknown_asked == ["item-77"]


def test_reasons_are_those_of_the_program(
    bundles: Path, run: Callable[..., Any], recommender: slmrec.Recommender
) -> None:
    result = run(bundles / "fp32.slmrec", HISTORIES[2], "--explain")["results"][0]
    ids = [row["item"] for row in result["recommendations"]]
    found = recommender.explain(HISTORIES[2], ids)
    assert list(found) == ids
    for row in result["recommendations"]:
        expected = [
            (r["item"], r["title"], r["age"], np.float32(r["drop"])) for r in row["reasons"]
        ]
        reasons = found[row["item"]]
        assert [(r.id, r.title, r.age, np.float32(r.drop)) for r in reasons] == expected
    assert any(found.values())
    assert all(
        len(reasons) <= 1 for reasons in recommender.explain(HISTORIES[2], ids, max_reasons=1).values()
    )


def test_integers_are_ids_and_iterables_are_histories(recommender: slmrec.Recommender) -> None:
    expected = recommender.recommend(HISTORIES[0])
    assert recommender.recommend(tuple(HISTORIES[0])) == expected
    assert recommender.recommend(iter(HISTORIES[0])) == expected
    assert recommender.recommend(np.array(HISTORIES[0], dtype=object)) == expected
    found = recommender.recommend([1, np.int64(2), *HISTORIES[0]])
    assert found == expected
    assert found.unknown_items == ["1", "2"]


def test_the_catalog_and_the_manifest(recommender: slmrec.Recommender) -> None:
    assert len(recommender) == 30
    assert recommender.item_ids == [f"item-{i}" for i in range(1, 31)]
    assert recommender.title("item-3") == "The item in row 3"
    assert "item-3" in recommender
    assert "item-31" not in recommender
    with pytest.raises(KeyError):
        recommender.title("item-31")
    assert recommender.manifest["items"]["count"] == 30
    assert recommender.engine.name == "onnxruntime"
    assert recommender.engine.incremental


def test_a_user_vector_has_one_value_for_each_dimension(recommender: slmrec.Recommender) -> None:
    vector = recommender.user_vector(HISTORIES[0])
    assert vector.shape == (recommender.manifest["items"]["dim"],)
    assert vector.dtype == np.float32
    assert np.any(vector)


def test_popular_items(recommender: slmrec.Recommender) -> None:
    popular = recommender.popular(3)
    assert [item.rank for item in popular] == [1, 2, 3]
    without = recommender.popular(3, block=[popular[0].id])
    assert [item.id for item in without][:2] == [item.id for item in popular][1:]


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_the_self_test_passes(bundles: Path, precision: str) -> None:
    with slmrec.Recommender(bundles / f"{precision}.slmrec") as recommender:
        result = recommender.self_test()
    assert result.passed
    assert len(result.samples) == 16
    assert min(sample.cosine for sample in result.samples) >= result.min_cosine > 0.5


def test_a_pack_changes_the_answers(bundles: Path, recommender: slmrec.Recommender) -> None:
    before = recommender.recommend(["item-1"])
    assert not recommender.has_prior
    with pytest.raises(slmrec.BundleError, match="a pack of the bundle"):
        recommender.apply_pack(bundles / "int8.delta")
    assert recommender.recommend(["item-1"]) == before
    recommender.apply_pack(bundles / "fp32.delta")
    assert recommender.has_prior
    after = recommender.recommend(["item-1"])
    assert after[0].id == "item-2"
    assert after[0].score > before[0].score + 10


def test_threads_do_not_change_the_answers(
    bundles: Path, recommender: slmrec.Recommender
) -> None:
    with slmrec.Recommender(bundles / "fp32.slmrec", threads=2) as two:
        assert two.engine.threads == 2
        for history in HISTORIES:
            ids = [item.id for item in two.recommend(history)]
            assert ids == [item.id for item in recommender.recommend(history)]
