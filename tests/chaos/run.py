#!/usr/bin/env python3
"""Kills the scheduler and workers at random while a job runs, with Mainstay and with stock Dask, and checks the results.

Each round is drawn from the seed: what is killed, and when. Both sides live through the same rounds, one after the other, on the
same node. When the result is there the scheduler is killed once more, to see whether it is still there afterwards.
"""

import argparse
import os
import random
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import sides
from kubectl import Kubectl, await_condition

sys.path.append(str(sides.ROOT / "bench"))

from figures import put, table  # noqa: E402

DOCS = sides.ROOT / "docs" / "reliability.md"
MARK = "<!-- by tests/chaos/run.py -->"
KINDS = {"the scheduler": ["scheduler"], "a worker": ["worker"], "both": ["scheduler", "worker"]}


@dataclass
class Tally:
    """What a side lived through, of one kind of round."""

    rounds: int = 0
    right: int = 0
    by_itself: int = 0
    held: int = 0
    runs: list = field(default_factory=list)
    seconds: list = field(default_factory=list)


def draw(random_, kind):
    """What is killed in a round, and how much of the job has been run then."""
    return sorted((random_.uniform(0.02, 0.95), what, random_.randrange(100)) for what in KINDS[kind])


def play(side, job, kills, tally):
    side.prepare(job)
    began = time.monotonic()
    side.begin(job)
    for share, what, which in kills:
        await_condition(f"{share:.0%} of {job}", lambda share=share: sum(side.runs(job)) >= share * sides.TASKS, sides.PATIENCE)
        if what == "scheduler":
            side.kill_scheduler()
        else:
            side.kill_worker(which)
    expected = sum(range(sides.TASKS))
    result, again = side.await_result(job)
    tally.seconds.append(time.monotonic() - began)
    tally.rounds += 1
    tally.right += result == expected
    tally.by_itself += again == 0
    runs = side.runs(job)
    tally.runs.append(sum(runs) / sides.TASKS)
    side.kill_scheduler()
    held = side.read_held(job)
    tally.held += held == expected and side.runs(job) == runs
    side.end(job)
    return f"{result == expected and 'right' or f'wrong: {result}'}, handed in again {again} times, {sum(runs)} runs, held: {held == expected}"


def show(tallies):
    head = ["killed while the job runs", "with", "rounds", "right results", "nobody had to do anything", "runs of a task, median and most",
            "s until the result, median", "results still there after the scheduler was killed once more"]
    return table(head, [
        [kind, title, tally.rounds, tally.right, tally.by_itself, f"{statistics.median(tally.runs):.2f}, {max(tally.runs):.2f}",
         f"{statistics.median(tally.seconds):.0f}", tally.held]
        for (kind, title), tally in tallies.items()])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="of each kind")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--docs", action="store_true", help="also put the table into docs/reliability.md")
    args = parser.parse_args()
    print(f"seed {args.seed}", flush=True)
    kubeconfig = os.environ.get("MAINSTAY_TEST_KUBECONFIG") or sides.ROOT / ".cache" / "cluster" / "kubeconfig"
    random_ = random.Random(args.seed)
    tallies = {(kind, side.title): Tally() for kind in KINDS for side in (sides.Stock, sides.Mainstay)}
    both = [side(Kubectl(Path(kubeconfig))) for side in (sides.Stock, sides.Mainstay)]
    try:
        for number in range(args.rounds):
            for kind in KINDS:
                kills = draw(random_, kind)
                for side in both:
                    said = play(side, f"{side.name}-{number}-{'-'.join(KINDS[kind])}", kills, tallies[kind, side.title])
                    print(f"{kind} ({number + 1} of {args.rounds}), {side.title}: {said}", flush=True)
    finally:
        for side in both:
            side.close()
    text = show(tallies)
    print(text)
    if args.docs:
        put(DOCS, MARK, f"{text}\n\nSeed {args.seed}; {sides.TASKS} tasks of {sides.TASK_SECONDS} s, {sides.WORKERS} workers with {sides.THREADS} threads.")
    ours = [tally for (_, title), tally in tallies.items() if title == sides.Mainstay.title]
    sys.exit(any(tally.right < tally.rounds or tally.by_itself < tally.rounds or tally.held < tally.rounds for tally in ours))


if __name__ == "__main__":
    main()
