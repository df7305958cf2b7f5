"""The package's types: strict, and those of the native half true."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import slmrec

PROJECT = Path(__file__).parent.parent


def mypy(*command: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", *command], capture_output=True, text=True, cwd=PROJECT
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_mypy_has_nothing_to_say(tmp_path: Path) -> None:
    said = mypy("mypy", "--config-file", "pyproject.toml", "--cache-dir", str(tmp_path))
    assert "no issues found" in said


def test_the_stub_is_true_of_the_native_half() -> None:
    allowed = "allowed-stub-differences.txt"
    said = mypy("mypy.stubtest", "slmrec._native", "--allowlist", f"tests/{allowed}")
    assert "no issues found" in said


def test_everything_public_is_documented() -> None:
    package = Path(slmrec.__file__).parent
    assert (package / "py.typed").is_file()
    for name in slmrec.__all__:
        thing = getattr(slmrec, name)
        assert inspect.getdoc(thing), name
        for member, value in vars(thing).items():
            if not member.startswith("_") and (callable(value) or isinstance(value, property)):
                assert inspect.getdoc(value), f"{name}.{member}"
