"""What can go wrong, as a small hierarchy under :class:`SlmrecError`.

Messages name what was expected and what was found, and end in ``; hint: ..`` where something can be
done about it.
"""

from __future__ import annotations


class SlmrecError(Exception):
    """Anything that goes wrong with a bundle, a history or the engine."""

    __module__ = "slmrec"


class BundleError(SlmrecError):
    """A bundle or pack that cannot be read: damaged, of another version, of another bundle."""

    __module__ = "slmrec"


class BundleNotFoundError(BundleError, FileNotFoundError):
    """There is no such file."""

    __module__ = "slmrec"


class HistoryError(SlmrecError, ValueError):
    """A history without an answer: it is empty, or the catalog knows none of its items."""

    __module__ = "slmrec"


class HistoryStateError(SlmrecError, ValueError):
    """Bytes that are no state of this bundle."""

    __module__ = "slmrec"


class EngineError(SlmrecError):
    """The engine does not run this bundle, or a provider that was asked for is not there."""

    __module__ = "slmrec"


class LibraryError(EngineError):
    """ONNX Runtime is not there, too old, or another one than this process has loaded."""

    __module__ = "slmrec"


class ClosedError(SlmrecError):
    """The recommender was closed."""

    __module__ = "slmrec"


class InternalError(SlmrecError):
    """A fault of slmrec or of the engine, not of what was given."""

    __module__ = "slmrec"
