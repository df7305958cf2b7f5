"""The package's types: strict, and those of the native half true."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import slmrec

PROJECT = Path(__file__).parent.parent
CONFIGURATION = str(PROJECT / "pyproject.toml")


def mypy(cwd: Path, *command: str) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", *command],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "MYPYPATH": str(PROJECT)},
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_mypy_has_nothing_to_say(tmp_path: Path) -> None:
    said = mypy(PROJECT, "mypy", "--config-file", CONFIGURATION, "--cache-dir", str(tmp_path))
    assert "no issues found" in said


def test_the_stub_is_true_of_the_native_half(tmp_path: Path) -> None:
    # Not in the project's folder, where Python would take the package without its native half.
    said = mypy(
        tmp_path,
        "mypy.stubtest",
        "slmrec._native",
        "--mypy-config-file",
        CONFIGURATION,
        "--allowlist",
        str(PROJECT / "tests/allowed-stub-differences.txt"),
        "--ignore-unused-allowlist",
    )
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
