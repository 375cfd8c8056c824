"""The tabular benchmark: every architecture of a small space, trained as 1-bit Child and as real-valued Parent.

    from search.benchmark import Benchmark

    table = Benchmark.load()
    table["skip|sep3|sep3|max|dil3"].child.test

Reading needs neither torch nor numpy. The table itself is made by :mod:`pipelines.benchmark`.
"""

from search.benchmark.table import Benchmark, Entry, Results, Run

__all__ = ["Benchmark", "Entry", "Results", "Run"]
