"""How measurements of PyTorch are timed."""
import time


def timed(repeats, work, warm_up=1):
    """Median seconds of `work`, after `warm_up` times that do not count."""
    for _ in range(warm_up):
        work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    times.sort()
    return times[len(times) // 2]
