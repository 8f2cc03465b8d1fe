#!/usr/bin/env python3
"""Drives the stock `dask scheduler` and Mainstay with the same programs, one after the other, and compares what they take.

Each program runs on a fresh scheduler, the sides alternate, and the tables have medians: of each side, and of the ratios of
the pairs. Each topic is a module with `run` and `show`.
"""

import argparse
import datetime
import importlib
import json
import os
import pathlib
import platform
import signal
import statistics
import sys
import time
import warnings

import report
from process import share_of_others

TOPICS = ("scheduler", "million", "submission", "clients", "workers", "faults", "cluster")


def say_since(began):
    def say(text):
        print(f"[{(time.monotonic() - began) / 60:5.1f} min] {text}", flush=True)

    return say


def processor():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.machine()


def machine():
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    return {
        "what": f"{processor()}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release().split('-')[0]}",
        "date": str(datetime.date.today()),
    }


def measure(topics, is_quick, wanted):
    say = say_since(time.monotonic())
    measured = {"machine": machine(), "quick": is_quick, "others": [], "topics": {}}
    for topic in topics:
        measured["others"].append(share_of_others(2))
        say(f"{topic}; others keep {measured['others'][-1]:.0%} of the machine busy")
        measured["topics"][topic] = importlib.import_module(topic).run(is_quick, say, wanted)
    measured["machine"]["others"] = statistics.mean(measured["others"])
    say("done")
    return measured


def main():
    # Whoever ends this ends its children.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    # Fake workers say little of what they are made of, and large graphs are the point.
    warnings.filterwarnings("ignore", message="Mismatched versions|Sending large graph")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="10,000 tasks and few repetitions: minutes")
    parser.add_argument("--only", default="", help=f"these topics, with commas between them: {','.join(TOPICS)}")
    parser.add_argument("--program", default="", help="of those that have several programs, the ones with this text")
    parser.add_argument("--json", type=pathlib.Path, help="also write all figures there, beside those of other topics")
    parser.add_argument("--load", type=pathlib.Path, help="show the figures of this file instead of measuring")
    parser.add_argument("--docs", action="store_true", help="also put tables and plot into docs/")
    args = parser.parse_args()
    if args.load:
        measured = json.loads(args.load.read_text())
    else:
        topics = args.only.split(",") if args.only else TOPICS
        measured = measure(topics, args.quick, args.program)
    if args.json and not args.load:
        args.json.write_text(json.dumps(measured, indent=1))
    for topic, results in measured["topics"].items():
        print(f"\n{report.text_of(topic, results, measured['machine'])}")
    if args.docs:
        report.write(measured)


if __name__ == "__main__":
    main()
