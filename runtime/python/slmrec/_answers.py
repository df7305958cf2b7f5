"""What a recommender answers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Item(NamedTuple):
    """An item of the catalog."""

    id: str
    #: What a person reads, where the catalog has it.
    title: str | None


class Recommendation(NamedTuple):
    """A recommended item."""

    id: str
    #: What a person reads, where the catalog has it.
    title: str | None
    #: Higher is better; comparable within one list only.
    score: float
    #: 1 for the best.
    rank: int


class PopularItem(NamedTuple):
    """An item of the popularity list: it has a place, but no score."""

    id: str
    #: What a person reads, where the catalog has it.
    title: str | None
    #: 1 for the most popular.
    rank: int


class Reason(NamedTuple):
    """An item of the history that speaks for a recommendation."""

    id: str
    #: What a person reads, where the catalog has it.
    title: str | None
    #: Its place in the history: 1 for the newest item.
    age: int
    #: By how much the score is lower without it; above 0.
    drop: float


class Recommendations(list[Recommendation]):
    """Recommended items, best first: a list, with what a person should know about it.

    Of two items with the same score, the one that comes first in the catalog is better.
    """

    #: By how many items the list is shorter than asked for, because the filters leave no more.
    shortfall: int
    #: Number of items that the encoder read: the newest known ones.
    used_items: int
    #: Ids of the history that the catalog does not have, each once.
    unknown_items: list[str]
    #: Ids of the block and allow lists, or of the items to score, that the catalog does not have.
    unknown_asked: list[str]
    #: Categories of the filter that no item of the catalog has.
    unknown_categories: list[str]

    def __init__(
        self,
        items: Iterable[Recommendation] = (),
        *,
        shortfall: int = 0,
        used_items: int = 0,
        unknown_items: list[str] | None = None,
        unknown_asked: list[str] | None = None,
        unknown_categories: list[str] | None = None,
    ) -> None:
        super().__init__(items)
        self.shortfall = shortfall
        self.used_items = used_items
        self.unknown_items = unknown_items or []
        self.unknown_asked = unknown_asked or []
        self.unknown_categories = unknown_categories or []


class Engine(NamedTuple):
    """What really runs."""

    name: str
    version: str
    #: The execution provider.
    provider: str
    #: Threads inside one inference.
    threads: int
    #: Member of the bundle that it runs.
    encoder: str
    #: Precision of that graph.
    precision: str
    #: Whether an appended item of a history state runs alone; else the history runs whole.
    incremental: bool


class Sample(NamedTuple):
    """How one sample of a bundle came out."""

    #: Cosine between this engine's user vector and the expected one.
    cosine: float
    #: Share of the expected top items that are in this engine's list.
    overlap: float


class SelfTest(NamedTuple):
    """How the samples that a bundle carries came out on this machine."""

    #: Whether every cosine and the mean overlap reach what the bundle asks for.
    passed: bool
    #: What made the expected results.
    computed_by: str
    #: Smallest cosine that passes.
    min_cosine: float
    #: Smallest mean overlap that passes.
    min_overlap: float
    samples: list[Sample]
