#!/usr/bin/env python3
"""Drives the stock `dask scheduler` and Mainstay with the same programs, one after the other, and compares what they take.

Each program runs on a fresh scheduler, the sides alternate, and the table has medians: of each side, and of the ratios of
the pairs.
"""

import argparse
import dataclasses
import datetime
import gc
import json
import os
import pathlib
import platform
import statistics
import time
import warnings

from distributed import Client, wait
from shapes import SHAPES
from sides import REPOSITORY, side

DOCS = REPOSITORY / "docs/performance.md"
BEGIN, END = "<!-- by bench/run.py --docs -->", "<!-- end -->"


@dataclasses.dataclass(frozen=True)
class Program:
    """One graph on one set of fake workers."""

    shape: str
    count: int
    workers: int
    threads: int
    restricted: bool = False

    def __str__(self):
        extra = ", restricted" if self.restricted else ""
        return f"{self.shape} {self.count:,} on {self.workers}×{self.threads}{extra}"


SIZED = [shape for shape in SHAPES if shape != "chain"]
QUICK = [Program(shape, 10_000, 16, 8) for shape in SIZED] + [
    Program("chain", 500, 16, 8),
    Program("independent", 10_000, 16, 8, restricted=True),
    Program("independent", 10_000, 2, 1),
]
FULL = QUICK + [Program(shape, 100_000, 16, 8) for shape in SIZED] + [
    Program("independent", 10_000, 1000, 1),
    Program("tree", 10_000, 1000, 1),
]


def measure(program, name):
    """Runs a program on a fresh scheduler; gives what it took."""
    with side(name) as one:
        arguments = ["--resource", "GPU=1e6"] if program.restricted else []
        fakes = one.start_fakes(program.workers, program.threads, *arguments)
        with Client(one.address) as client:
            one.await_workers(client, program.workers)
            graph, outputs = SHAPES[program.shape](program.count)
            options = {"priority": 5, "resources": {"GPU": 1}, "retries": 2} if program.restricted else {}
            gc.collect()
            fakes.counters()
            cpu, memory, began = one.process.cpu(), one.process.memory(), time.time()
            futures = client.get(graph, outputs, sync=False, **options)
            wait(futures)
            cpu_used, held = one.process.cpu() - cpu, one.process.memory() - memory
            counters = fakes.counters()
            del futures
            freed = counters["frees"]
            while freed < len(graph):
                time.sleep(0.05)
                freed += fakes.counters()["frees"]
            after = one.process.memory() - memory
    tasks = len(graph)
    assert counters["tasks"] >= tasks, counters
    return {
        "tasks": tasks,
        "cpu_us": cpu_used / tasks * 1e6,
        "rate": tasks / (counters["last"] - counters["first"]),
        "first_s": counters["first"] - began,
        "held_bytes": held / tasks,
        "after_bytes": after / tasks,
        "bytes_down": counters["bytes_in"] / tasks,
        "messages": counters["messages"],
    }


# Each with how it is shown, and whether more of it is better.
COLUMNS = [
    ("cpu_us", "CPU µs/task", "{:.1f}", False),
    ("rate", "tasks/s", "{:,.0f}", True),
    ("first_s", "s to first task", "{:.2f}", False),
    ("held_bytes", "held B/task", "{:,.0f}", False),
    ("bytes_down", "wire B/task", "{:,.0f}", False),
]


def table(results):
    """A Markdown table: of each figure what the stock scheduler and Mainstay have, and how many times better Mainstay is."""
    lines = ["| program | " + " | ".join(title for _, title, _, _ in COLUMNS) + " |", "|---|" + "---|" * len(COLUMNS)]
    for program, pairs in results.items():
        cells = []
        for figure, _, shown, more_is_better in COLUMNS:
            sides = [[pair[name][figure] for pair in pairs] for name in ("dask", "mainstay")]
            ratios = [ours / stock if more_is_better else stock / ours for stock, ours in zip(*sides)]
            stock, ours = (shown.format(statistics.median(values)) for values in sides)
            ratio = statistics.median(ratios)
            cells.append(f"{stock} → {ours} (**{ratio:.{2 if ratio < 1 else 1 if ratio < 10 else 0}f}×**)")
        lines.append(f"| {program} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_docs(text):
    """Puts the table where people read it."""
    before, _, rest = DOCS.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCS.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def run(programs, repetitions):
    results = {}
    for program in programs:
        results[str(program)] = []
        for repetition in range(repetitions):
            names = ("dask", "mainstay") if repetition % 2 == 0 else ("mainstay", "dask")
            pair = {name: measure(program, name) for name in names}
            results[str(program)].append(pair)
            shown = {name: {key: round(value, 2) for key, value in figures.items()} for name, figures in pair.items()}
            print(f"{program}: {json.dumps(shown)}", flush=True)
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {datetime.date.today()}, {repetitions} repetitions"
    return {"machine": machine, "results": results}


def main():
    # Fake workers say little of what they are made of.
    warnings.filterwarnings("ignore", message="Mismatched versions")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10,000 tasks, three repetitions")
    parser.add_argument("--only", default="", help="programs that have this word")
    parser.add_argument("--repetitions", type=int)
    parser.add_argument("--json", type=pathlib.Path, help="also write all figures there")
    parser.add_argument("--load", type=pathlib.Path, help="show the figures of this file instead of measuring")
    parser.add_argument("--docs", action="store_true", help="also put the table into docs/performance.md")
    args = parser.parse_args()
    if args.load:
        measured = json.loads(args.load.read_text())
    else:
        programs = [program for program in (QUICK if args.quick else FULL) if args.only in str(program)]
        measured = run(programs, args.repetitions or (3 if args.quick else 5))
    text = f"{measured['machine']}; stock → Mainstay, and how many times better:\n\n{table(measured['results'])}"
    print(f"\n{text}")
    if args.json:
        args.json.write_text(json.dumps(measured, indent=1))
    if args.docs:
        write_docs(text)


if __name__ == "__main__":
    main()
