"""What the benchmarks time by."""

import statistics
import time


def paired(first, second, rounds=7):
    """Median over rounds of first's time by second's, run in turns, so that a machine's drift cancels."""
    ratios = []
    for i in range(rounds + 1):
        times = []
        for work in (first, second):
            started = time.perf_counter()
            work()
            times.append(time.perf_counter() - started)
        ratios += [times[0] / times[1]] if i else []
    return statistics.median(ratios)
