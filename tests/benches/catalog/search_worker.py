"""Exact search by others over int8 rows, for `cargo xtask bench catalog`; one thread.

Usage: search_worker.py
Lines: rows FILE DIM     the catalog: int8 rows, one behind the other
       user V V ..       the user vector, DIM values of int8
       best WHO          the ten largest dot products, largest first; WHO: usearch or numkong
       run WHO           the same search, timed: wall and CPU milliseconds, peak memory in KiB, NaN
`rows` and `user` are answered with `ok`."""
import resource
import sys
import time

import numkong
import numpy
from usearch.index import MetricKind, search

K = 10


class Searcher:
    def rows(self, file, dim):
        self.table = numpy.fromfile(file, numpy.int8).reshape(-1, int(dim))
        # The form that numkong wants for a matrix that is asked again and again.
        self.packed = numkong.dots_pack(self.table)
        return "ok"

    def user(self, *values):
        self.query = numpy.array([values], numpy.int64).astype(numpy.int8)
        return "ok"

    def found(self, who):
        """Rows of the best items."""
        if who == "usearch":
            return search(
                self.table, self.query, K, metric=MetricKind.IP, exact=True, threads=1).keys
        scores = numpy.asarray(numkong.dots_packed(self.query, self.packed))[0]
        best = numpy.argpartition(scores, -K)[-K:]
        return best[numpy.argsort(-scores[best])]

    def best(self, who):
        rows = self.table[numpy.asarray(self.found(who), dtype=numpy.int64).ravel()]
        scores = rows.astype(numpy.int64) @ self.query[0].astype(numpy.int64)
        return " ".join(str(score) for score in sorted(scores.tolist(), reverse=True))

    def run(self, who):
        wall, cpu = time.perf_counter(), time.process_time()
        self.found(who)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return f"{wall * 1e3} {cpu * 1e3} {peak} nan"


searcher = Searcher()
for line in sys.stdin:
    what, *arguments = line.split()
    print(getattr(searcher, what)(*arguments), flush=True)
