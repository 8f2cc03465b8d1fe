"""Futures that coordinate on a Mainstay: a search for the size of the Mandelbrot set that stops once it is known well enough.

`python futures.py [ADDRESS]`; needs `pip install "dask[complete]"`. Tasks look at random points, note what they found in a
variable of the cluster, and say so in a queue; who sees that it is enough sets an event, and the tasks still to come return
at once.
"""

import os
import sys

import numpy as np
from distributed import Client, Event, Lock, Queue, Variable, as_completed, get_worker

SIZE = 1.5066  # By counting pixels: OEIS A098403.
WANTED_ERROR = 0.01
POINTS = 100_000


def look(seed):
    """How many of some random points belong to the set."""
    if Event("known").is_set():
        return None
    random = np.random.default_rng(seed)
    points = random.uniform(-2, 0.5, POINTS) + 1j * random.uniform(-1.15, 1.15, POINTS)
    z = np.zeros_like(points)
    for _ in range(200):
        z = np.where(abs(z) <= 2, z * z + points, z)
    inside = int((abs(z) <= 2).sum())
    with Lock("totals"):  # One at a time reads, adds and writes.
        totals = Variable("totals")
        seen, found = totals.get()
        totals.set((seen + POINTS, found + inside))
    Queue("progress").put((str(get_worker().name), seed))
    return inside


def estimate(seen, found):
    share = found / seen
    area = 2.5 * 2.3
    return share * area, area * (share * (1 - share) / seen) ** 0.5


def main(address):
    with Client(address) as client:
        totals, progress, known = Variable("totals"), Queue("progress"), Event("known")
        known.clear()
        totals.set((0, 0))
        running = as_completed(client.map(look, range(8), pure=False))
        following = iter(range(8, 1_000))
        counted = 0
        for future in running:
            counted += future.result() or 0
            seen, found = totals.get()
            if estimate(seen, found)[1] <= WANTED_ERROR:
                known.set()
            else:
                running.add(client.submit(look, next(following), pure=False))
        seen, found = totals.get()
        told = progress.get(batch=True)
        totals.delete()
        progress.close()

    size, error = estimate(seen, found)
    print(f"{size:.3f} ± {error:.3f}, from {seen:,} points that {len({worker for worker, _ in told})} workers looked at")
    assert found == counted and seen == POINTS * len(told), "what tasks noted is what they returned"
    assert abs(size - SIZE) < 5 * error + 0.02, f"{size} is far from {SIZE}"
    print("That is what others have found.")


if __name__ == "__main__":
    main(*(sys.argv[1:] or [os.environ.get("DASK_SCHEDULER_ADDRESS", "tcp://127.0.0.1:8786")]))
