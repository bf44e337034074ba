"""How measurements of PyTorch are timed."""
import time


def timed(repeats, work):
    """Median seconds of `work`, after once to warm up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    times.sort()
    return times[len(times) // 2]
