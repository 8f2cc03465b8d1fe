"""What a task costs the scheduler, where workers answer at once."""

import dataclasses
import gc
import statistics
import time

from distributed import Client, wait
from figures import compare, factor, median, table
from process import await_condition, share_of_others
from shapes import SHAPES
from sides import NAMES, ping_pong_us, side, turns

TITLE = "The scheduler alone"


@dataclasses.dataclass(frozen=True)
class Program:
    """One graph on one set of fake workers."""

    shape: str
    count: int
    workers: int = 16
    threads: int = 8
    repetitions: int = 5
    # What every other worker has.
    resource: str = ""
    note: str = ""

    def __str__(self):
        note = f", {self.note}" if self.note else ""
        return f"{self.shape} {self.count:,} on {self.workers:,}×{self.threads}{note}"


WIDE = ("independent", "tree", "shuffle", "chains", "stencil")
# As many as a worker has threads, so that it binds; and so many that it never does.
SCARCE, PLENTY = "GPU=8", "GPU=1000000"


def programs(is_quick):
    """All shapes on 16 workers; on 2 and on 1,000, where the number of workers is what matters, the two that differ most."""
    if is_quick:
        return [
            *(Program(shape, 10_000, repetitions=1 + (shape == "independent")) for shape in WIDE),
            Program("chain", 500, repetitions=1),
            Program("mixed", 10_000, resource=SCARCE, repetitions=1),
            Program("independent", 10_000, 2, 1, repetitions=1),
            Program("independent", 10_000, 1000, 1, repetitions=1),
        ]
    return [
        *(Program(shape, 10_000) for shape in WIDE),
        Program("chain", 1_000),
        Program("chain", 10_000, repetitions=1),
        Program("mixed", 10_000, resource=SCARCE),
        Program("mixed", 10_000, resource=PLENTY, note="plenty", repetitions=3),
        Program("independent", 10_000, 2, 1),
        Program("tree", 10_000, 2, 1, repetitions=3),
        Program("independent", 10_000, 1000, 1, repetitions=3),
        Program("tree", 10_000, 1000, 1, repetitions=3),
        *(Program(shape, 100_000, repetitions=3) for shape in WIDE),
        Program("mixed", 100_000, resource=SCARCE, repetitions=1),
    ]


def measure(program, name):
    """Runs a program on a fresh scheduler; gives what it took."""
    with side(name) as one:
        flags = ["--resource", program.resource] if program.resource else []
        fakes = one.start_fakes(program.workers, program.threads, *flags)
        with Client(one.address) as client:
            one.await_workers(client, program.workers)
            return drive(one, fakes, client, *SHAPES[program.shape](program.count))


def drive(one, fakes, client, graph, outputs, **options):
    """Has a graph persisted and released again."""
    tasks = len(graph)
    # The Client's own garbage collection would look at the graph again and again.
    gc.collect()
    gc.freeze()
    one.process.await_idle()
    one.process.forget_peak()
    fakes.counters()
    cpu, of_fakes, memory = one.process.cpu(), fakes.cpu(), one.process.memory()
    began = time.time()
    futures = client.get(graph, outputs, sync=False, **options)
    wait(futures)
    ended = time.time()
    cpu_used, of_fakes = one.process.cpu() - cpu, fakes.cpu() - of_fakes
    held, peak = one.process.memory(), one.process.peak()
    counters = fakes.counters()
    assert counters["tasks"] >= tasks, counters
    released, cpu = release(one, fakes, futures, counters["frees"], tasks)
    gc.unfreeze()
    return {
        "tasks": tasks,
        "cpu_us": cpu_used / tasks * 1e6,
        "fakes_us": of_fakes / tasks * 1e6,
        "release_us": cpu / tasks * 1e6,
        "rate": tasks / max(1e-6, counters["last"] - counters["first"]),
        "hop_us": (counters["last"] - counters["first"]) / tasks * 1e6,
        "first_s": counters["first"] - began,
        "all_s": ended - began,
        "start_mb": memory / 1e6,
        "held_bytes": (held - memory) / tasks,
        "peak_bytes": (peak - memory) / tasks,
        "released_share": released / memory,
        "bytes_down": counters["bytes_in"] / tasks,
        "bytes_up": counters["bytes_out"] / tasks,
        "messages": counters["messages"],
        "steals": counters["steals"],
        "times": {"began": began, "first": counters["first"], "last": counters["last"]},
    }


def release(one, fakes, futures, freed, tasks):
    """Lets go of all; gives the memory after it, and the CPU time that it took."""
    cpu = one.process.await_idle()

    def is_freed():
        nonlocal freed
        freed += fakes.counters()["frees"]
        return freed >= tasks

    futures.clear()
    await_condition(is_freed, f"{tasks:,} tasks are freed", 0.05)
    after = one.process.await_idle()
    return one.process.memory(), after - cpu


def run(is_quick, say, wanted=""):
    results = []
    for program in programs(is_quick):
        if wanted not in str(program):
            continue
        pairs, others, pings = [], [], []
        for repetition, names in turns(program.repetitions):
            others.append(share_of_others())
            pings.append(ping_pong_us())
            pairs.append({name: measure(program, name) for name in names})
            costs = {name: f"{pairs[-1][name]['cpu_us']:.1f}" for name in NAMES}
            say(f"{program} ({repetition + 1} of {program.repetitions}): {costs['dask']} → {costs['mainstay']} µs/task")
        about = {**dataclasses.asdict(program), "name": str(program)}
        results.append({**about, "pairs": pairs, "others": others, "ping_pong_us": statistics.median(pings)})
    return results


def after(pairs):
    """How much more there is after release than before, of both sides."""
    return " → ".join(
        f"{100 * (median([pair[name] for pair in pairs], 'released_share') - 1):+.0f} %" for name in NAMES
    )


def show(results):
    rows, memory = [], []
    for result in results:
        pairs = result["pairs"]
        rows.append([
            result["name"],
            len(pairs),
            compare(pairs, "cpu_us", "{:.1f}"),
            compare(pairs, "rate", "{:,.0f}", more_is_better=True),
            compare(pairs, "release_us", "{:.1f}"),
            compare(pairs, "bytes_down", "{:,.0f}"),
        ])  # fmt: skip
        memory.append([
            result["name"],
            compare(pairs, "held_bytes", "{:,.0f}"),
            compare(pairs, "peak_bytes", "{:,.0f}"),
            after(pairs),
        ])  # fmt: skip
    head = ["program", "pairs", "CPU µs/task", "tasks/s", "release, CPU µs/task", "wire B/task"]
    text = table(head, rows)
    head = ["program", "held B/task", "peak B/task", "RSS after release against before"]
    return "\n\n".join([text, table(head, memory), *sentences(results)])


def sentences(results):
    """What follows from several programs together."""
    by_name = {result["name"]: result["pairs"] for result in results}
    for result in results:
        if result["shape"] == "chain":
            hops = [median([pair[name] for pair in result["pairs"]], "hop_us") for name in NAMES]
            stock, ours = (f"{hop:,.0f} µs, {hop / result['ping_pong_us']:.1f} round trips" for hop in hops)
            yield (
                f"One hop of the chain of {result['count']:,}: {stock} → {ours}; a round trip on loopback between two threads "
                f"takes {result['ping_pong_us']:.1f} µs."
            )
    for what, upper, lower in [
        ("The mixed program against the plain one", "mixed 10,000 on 16×8", "independent 10,000 on 16×8"),
        ("The same with plenty", "mixed 10,000 on 16×8, plenty", "independent 10,000 on 16×8"),
        ("100,000 mixed tasks against plain ones", "mixed 100,000 on 16×8", "independent 100,000 on 16×8"),
        ("100,000 tasks against 10,000", "independent 100,000 on 16×8", "independent 10,000 on 16×8"),
        ("1,000 workers against 16, independent", "independent 10,000 on 1,000×1", "independent 10,000 on 16×8"),
        ("1,000 workers against 16, tree", "tree 10,000 on 1,000×1", "tree 10,000 on 16×8"),
    ]:
        if upper in by_name and lower in by_name:
            ratios = [
                factor(
                    median([pair[name] for pair in by_name[upper]], "cpu_us")
                    / median([pair[name] for pair in by_name[lower]], "cpu_us")
                )
                for name in NAMES
            ]
            yield f"{what}, CPU a task: {ratios[0]} → {ratios[1]}."
