"""Recommendations for a Parquet file of histories on Spark.

    python examples/spark_batch.py student.slmrec histories.parquet recommendations -k 10

In: `user` (string) and `history` (list of strings, oldest first). Out: `user`, `items` and `scores`,
best first; a history that is empty or unknown has empty lists. The bundle is opened once for each
partition; on a cluster it lies where every worker sees it.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator

import pandas as pd
import pyarrow as pa
import slmrec
from pyspark.sql import SparkSession

SCHEMA = "user string, items array<string>, scores array<float>"


def recommend(
    bundle: str, k: int
) -> Callable[[Iterator[pd.DataFrame]], Iterator[pd.DataFrame]]:
    """What runs on a partition."""

    def partition(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        with slmrec.Recommender(bundle) as recommender:
            for batch in batches:
                histories = pa.array(batch["history"], pa.list_(pa.string()))
                found = recommender.recommend_batch(histories, k, on_error="empty").to_arrow()
                yield pd.DataFrame(
                    {
                        "user": batch["user"],
                        "items": found["items"].to_pylist(),
                        "scores": found["scores"].to_pylist(),
                    }
                )

    return partition


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("histories", help="Parquet file or folder")
    parser.add_argument("recommendations", help="folder that is written")
    parser.add_argument("-k", type=int, default=10)
    arguments = parser.parse_args()

    spark = SparkSession.builder.appName("slmrec").getOrCreate()
    histories = spark.read.parquet(arguments.histories)
    found = histories.mapInPandas(
        # The workers run in folders of their own.
        recommend(os.path.abspath(arguments.bundle), arguments.k),
        SCHEMA,
    )
    found.write.parquet(arguments.recommendations)
    spark.stop()


if __name__ == "__main__":
    main()
