"""Finding ONNX Runtime's shared library."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path

from slmrec._errors import LibraryError

#: A library that the environment names, as for `slmrec-run`.
VARIABLE = "ORT_DYLIB_PATH"
#: The official builds send telemetry unless this is set before they are loaded.
TELEMETRY = "ORT_DISABLE_TELEMETRY"

_NAMES = re.compile(
    r"libonnxruntime\.so(\.(?P<linux>[\d.]+))?"
    r"|libonnxruntime(\.(?P<mac>[\d.]+))?\.dylib"
    r"|onnxruntime\.dll"
)


def find(library: str | os.PathLike[str] | None) -> Path:
    """The library to load: `library`, else that of ``ORT_DYLIB_PATH``, else that of an installed
    package `onnxruntime`, which is looked at but not imported.

    Raises:
        LibraryError: There is none.
    """
    named = library or os.environ.get(VARIABLE)
    if named:
        return Path(named)
    folder = _package()
    found = None if folder is None else _newest(folder)
    if found is None:
        where = "there is none" if folder is None else f"{folder} has no library"
        raise LibraryError(
            f"ONNX Runtime was not found: no library was named, {VARIABLE} is not set, and of an "
            f"installed package onnxruntime {where}; hint: pip install onnxruntime"
        )
    return found


def disable_telemetry() -> None:
    """Sees to it that ONNX Runtime sends nothing, if this process has not loaded it yet."""
    os.environ[TELEMETRY] = "1"


def _package() -> Path | None:
    spec = importlib.util.find_spec("onnxruntime")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "capi"


def _newest(folder: Path) -> Path | None:
    if not folder.is_dir():
        return None
    found = [(match, path) for path in folder.iterdir() if (match := _NAMES.fullmatch(path.name))]
    return max(found, key=lambda pair: _version(pair[0]))[1] if found else None


def _version(match: re.Match[str]) -> tuple[int, ...]:
    text = match["linux"] or match["mac"] or ""
    return tuple(int(part) for part in text.split(".") if part)
