"""The examples for Ray and Spark, on local workers: the rows of `slmrec-run batch`.

`cargo xtask check-engines` installs the engines and starts these tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import slmrec
from slmrec import _library

EXAMPLES = Path(__file__).parents[4] / "examples"
K = 7
USERS = 3000


@pytest.fixture(scope="module")
def histories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Users with histories of up to 14 items, some of them empty or unknown."""
    rows = [
        [f"item-{1 + (user * 11 + i * (1 + user % 7)) % 30}" for i in range(user % 15)]
        for user in range(USERS)
    ]
    rows[7] = ["nonsense"]
    table = pa.table({"user": [f"user-{user}" for user in range(USERS)], "history": rows})
    path = tmp_path_factory.mktemp("histories") / "histories.parquet"
    # Several row groups, so that there is something to share.
    pq.write_table(table, path, row_group_size=500)
    return path


def by_user(table: pa.Table) -> list[dict[str, object]]:
    columns = table.select(["user", "items", "scores"])
    return columns.sort_by("user").to_pylist()


@pytest.fixture(scope="module")
def expected(bundles: Path, histories: Path) -> list[dict[str, object]]:
    table = pq.read_table(histories)
    with slmrec.Recommender(bundles / "int8.slmrec") as recommender:
        found = recommender.recommend_batch(table["history"], K, on_error="empty")
    assert len(found.failures) > USERS // 15
    rows = by_user(found.to_arrow().add_column(0, "user", table["user"]))
    assert sum(len(row["items"]) == K for row in rows) > USERS // 2
    return rows


@pytest.mark.parametrize("engine", ["ray", "spark"])
def test_an_engine_gives_the_rows_of_one_recommender(
    bundles: Path,
    histories: Path,
    expected: list[dict[str, object]],
    tmp_path: Path,
    engine: str,
) -> None:
    output = tmp_path / "recommendations"
    example = [sys.executable, EXAMPLES / f"{engine}_batch.py"]
    arguments = [bundles / "int8.slmrec", histories, output, "-k", str(K)]
    environment = {
        **os.environ,
        # Both start Pythons of their own.
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    subprocess.run([*example, *arguments], env=environment, cwd=tmp_path, check=True)
    assert by_user(pq.read_table(output)) == expected


def test_the_program_gives_the_same_rows(
    bundles: Path, histories: Path, expected: list[dict[str, object]], tmp_path: Path
) -> None:
    output = tmp_path / "recommendations.parquet"
    program = os.environ["SLMREC_TEST_RUN"]
    command = [program, "batch", "--input", histories, "--output", output, "-k", str(K)]
    environment = {**os.environ, "ORT_DYLIB_PATH": str(_library.find(None))}
    command += ["--bundle", bundles / "int8.slmrec"]
    subprocess.run(command, env=environment, check=True)
    assert by_user(pq.read_table(output)) == expected
