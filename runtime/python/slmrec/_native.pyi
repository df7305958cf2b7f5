"""The native half; use the package."""

from collections.abc import Iterable
from os import PathLike
from typing import TypedDict, final

__all__ = ["HistoryState", "Recommender"]

_Ids = Iterable[str | int]
# Block and allow lists, categories, blocked categories, whether seen items are recommended.
_Filter = tuple[_Ids, _Ids | None, Iterable[str] | None, Iterable[str], bool]

class Answer(TypedDict):
    items: list[tuple[str, str | None, float, int]]
    shortfall: int
    used_items: int
    unknown_items: list[str]
    unknown_asked: list[str]
    unknown_categories: list[str]

class Answers(TypedDict):
    lists: bytes
    starts: bytes
    text: bytes
    scores: bytes
    failures: list[tuple[int, str]]

class Engine(TypedDict):
    name: str
    version: str
    provider: str
    threads: int
    encoder: str
    precision: str
    incremental: bool

class SelfTest(TypedDict):
    passed: bool
    computed_by: str
    min_cosine: float
    min_overlap: float
    samples: list[tuple[float, float]]

@final
class HistoryState:
    def append(self, id: str | int) -> bool: ...
    def recommend(self, k: int, filter: _Filter) -> Answer: ...
    def user_vector(self) -> list[float]: ...
    def used_items(self) -> int: ...
    def to_bytes(self) -> bytes: ...

@final
class Recommender:
    def __new__(
        cls,
        path: str | PathLike[str],
        library: str | PathLike[str],
        threads: int,
        provider: str,
        prior: bool,
    ) -> Recommender: ...
    def close(self) -> None: ...
    def recommend(self, history: _Ids, k: int, filter: _Filter) -> Answer: ...
    def recommend_batch(self, histories: object, k: int, filter: _Filter) -> Answers: ...
    def recommend_column(
        self, lists: bytes, starts: bytes, text: bytes, k: int, filter: _Filter
    ) -> Answers: ...
    def score(self, history: _Ids, ids: _Ids) -> Answer: ...
    def explain(
        self, history: _Ids, ids: _Ids, max_items: int, max_reasons: int
    ) -> list[list[tuple[str, str | None, int, float]]]: ...
    def popular(self, k: int, filter: _Filter) -> list[tuple[str, str | None, int]]: ...
    def user_vector(self, history: _Ids) -> list[float]: ...
    def history_state(self, history: _Ids) -> tuple[HistoryState, list[str]]: ...
    def restore_history_state(self, bytes: bytes) -> HistoryState: ...
    def apply_pack(self, path: str | PathLike[str]) -> None: ...
    def items(self) -> list[tuple[str, str | None]]: ...
    def manifest(self) -> str: ...
    def has_prior(self) -> bool: ...
    def engine(self) -> Engine: ...
    def self_test(self) -> SelfTest: ...
