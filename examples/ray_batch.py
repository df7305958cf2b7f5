"""Recommendations for a Parquet file of histories on Ray Data.

    python examples/ray_batch.py student.slmrec histories.parquet recommendations -k 10

In: `user` (string) and `history` (list of strings, oldest first). Out: `user`, `items` and `scores`,
best first; a history that is empty or unknown has empty lists. Each worker opens the bundle once.
"""

from __future__ import annotations

import argparse
import os

import pyarrow as pa
import ray
import slmrec


class Recommend:
    """What a worker is: one recommender."""

    def __init__(self, bundle: str, k: int) -> None:
        self._recommender = slmrec.Recommender(bundle)
        self._k = k

    def __call__(self, batch: pa.Table) -> pa.Table:
        found = self._recommender.recommend_batch(batch["history"], self._k, on_error="empty")
        return found.to_arrow().add_column(0, "user", batch["user"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument("histories", help="Parquet file or folder")
    parser.add_argument("recommendations", help="folder that is written")
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--workers", type=int, default=1, help="most recommenders at a time")
    arguments = parser.parse_args()

    ray.data.read_parquet(arguments.histories).map_batches(
        Recommend,
        # The workers run in folders of their own.
        fn_constructor_args=(os.path.abspath(arguments.bundle), arguments.k),
        batch_format="pyarrow",
        batch_size=1024,
        # Begins with one: workers that take every core would leave none to read with.
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=arguments.workers),
    ).write_parquet(os.path.abspath(arguments.recommendations))


if __name__ == "__main__":
    main()
