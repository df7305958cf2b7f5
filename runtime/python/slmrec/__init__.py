"""Recommendations from an SLMRec bundle.

    import slmrec

    with slmrec.Recommender("student.slmrec") as recommender:
        for item in recommender.recommend(["50", "181"], k=10):
            print(item.rank, item.title or item.id, item.score)

Nothing here opens a network connection. Everything that goes wrong with a bundle, a history or the
engine is a :class:`SlmrecError`; an argument of the wrong type is a ``TypeError``, one out of range
a ``ValueError``.
"""

from slmrec._answers import (
    Engine,
    Item,
    PopularItem,
    Reason,
    Recommendation,
    Recommendations,
    Sample,
    SelfTest,
)
from slmrec._batch import BatchRecommendations
from slmrec._errors import (
    BundleError,
    BundleNotFoundError,
    ClosedError,
    EngineError,
    HistoryError,
    HistoryStateError,
    InternalError,
    LibraryError,
    SlmrecError,
)
from slmrec._history_state import HistoryState
from slmrec._recommender import Recommender

__all__ = [
    "BatchRecommendations",
    "BundleError",
    "BundleNotFoundError",
    "ClosedError",
    "Engine",
    "EngineError",
    "HistoryError",
    "HistoryState",
    "HistoryStateError",
    "InternalError",
    "Item",
    "LibraryError",
    "PopularItem",
    "Reason",
    "Recommendation",
    "Recommendations",
    "Recommender",
    "Sample",
    "SelfTest",
    "SlmrecError",
]
