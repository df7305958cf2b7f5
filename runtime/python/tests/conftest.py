"""What the tests share. They are started by `tests/python.rs`, which makes the bundles."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import slmrec
from slmrec import _library

#: Histories of the tiny catalog `item-1` .. `item-30`.
HISTORIES = [
    ["item-1", "item-2", "item-3"],
    ["item-7"],
    ["item-30", "nonsense", "item-4", "item-4", "item-12", "item-9", "item-8", "item-20"],
    [f"item-{i}" for i in range(1, 31, 2)],
]


def _variable(name: str) -> Path:
    value = os.environ.get(name)
    if value is None:
        pytest.exit(f"{name} is not set: these tests are started by `cargo test -p slmrec-python`")
    return Path(value)


@pytest.fixture(scope="session")
def bundles() -> Path:
    """The folder with `fp32.slmrec`, `int8.slmrec`, `fp32.delta` and `int8.delta`."""
    return _variable("SLMREC_TEST_BUNDLES")


@pytest.fixture
def recommender(bundles: Path) -> Iterator[slmrec.Recommender]:
    with slmrec.Recommender(bundles / "fp32.slmrec") as opened:
        yield opened


@pytest.fixture(scope="session")
def run() -> Callable[..., Any]:
    """`slmrec-run` with arguments and a history document; what it prints as JSON."""
    program = _variable("SLMREC_TEST_RUN")
    # The same library, so that a last bit cannot differ.
    environment = {**os.environ, "ORT_DYLIB_PATH": str(_library.find(None))}

    def run(bundle: Path, document: object, *arguments: str) -> Any:
        command = [program, "-", "--bundle", bundle, "--format", "json", *arguments]
        output = subprocess.run(
            command,
            input=json.dumps(document).encode(),
            capture_output=True,
            env=environment,
            check=False,
        )
        assert output.returncode == 0, output.stderr.decode()
        return json.loads(output.stdout)

    return run
