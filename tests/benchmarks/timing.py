"""What the benchmarks time by."""

import os
import statistics
import time


def processor_seconds():
    """Work done by this process and by those of its children that have ended, which other work does not lengthen."""
    return sum(os.times()[:4])


def paired(first, second, rounds=7, clock=time.perf_counter):
    """Median over rounds of first's time by second's, run in turns, so that a machine's drift cancels."""
    ratios = []
    for i in range(rounds + 1):
        times = []
        for work in (first, second):
            started = clock()
            work()
            times.append(clock() - started)
        ratios += [times[0] / times[1]] if i else []
    return statistics.median(ratios)
