"""Mainstay alone with a million tasks, and how long others wait for answers meanwhile."""

import statistics

from distributed import Client
from figures import factor, quantile, table
from process import share_of_others
from scheduler import drive
from shapes import SHAPES
from sides import ping_pong_us, side

TITLE = "A million tasks"
WORKERS, THREADS = 16, 8
# Between an answer and the next question.
PAUSE_MS = 2


def programs(is_quick):
    """Shape and count; the first is what the others are compared with."""
    if is_quick:
        return [("independent", 10_000), ("independent", 200_000)]
    return [("independent", 10_000), ("chain", 100_000), ("independent", 1_000_000), ("tree", 1_000_000)]


def measure(shape, count):
    with side("mainstay", has_relay=True) as one:
        fakes = one.start_fakes(WORKERS, THREADS)
        with Client(one.address) as client:
            one.await_workers(client, WORKERS)
            address = next(worker for worker, threads in client.nthreads().items() if threads == THREADS)
            graph, outputs = SHAPES[shape](count)
            one.relay.counters()
            probe = one.start_fake("probe", one.address, address)
            took = drive(one, fakes, client, graph, outputs)
            answers, relay = probe.counters(), one.relay.counters()
    return {**took, "relay": relay, "waits": waits(answers, relay, took["times"])}


def waits(answers, relay, times):
    """How long answers took: while a Client hands in, while its lowered graph is taken in, while the tasks run."""
    taken_in = max(relay["last"], times["first"])
    windows = {
        "handed in": (times["began"], relay["asked"]),
        "taken in": (relay["first"], taken_in),
        "run": (taken_in, times["last"]),
    }
    found = {}
    for name, (start, end) in windows.items():
        # An answer that came late was asked for before, and kept the next questions from being asked.
        late = [wait for at, wait in answers if start - wait / 1e3 <= at <= end]
        took = [wait - n * PAUSE_MS for wait in late for n in range(1 + int(wait / PAUSE_MS))]
        if took:
            found[name] = {
                "p50": quantile(took, 0.5),
                "p99": quantile(took, 0.99),
                "max": max(took),
                "count": len(took),
            }
    return found


def run(is_quick, say, wanted=""):
    results = []
    for shape, count in programs(is_quick):
        name = f"{shape} {count:,} on {WORKERS}×{THREADS}"
        if wanted not in name:
            continue
        others, ping = share_of_others(), ping_pong_us()
        took = [measure(shape, count) for _ in range(1 if is_quick or count > 10_000 else 3)]
        say(
            f"{name}: {statistics.median(run['cpu_us'] for run in took):.1f} µs/task, waits {took[-1]['waits'].get('taken in')}"
        )
        results.append({"name": name, "shape": shape, "runs": took, "others": others, "ping_pong_us": ping})
    return results


def show(results):
    def mid(result, figure):
        return statistics.median(run[figure] for run in result["runs"])

    rows, stalls, first = [], [], mid(results[0], "cpu_us")
    for result in results:
        tasks, start = mid(result, "tasks"), mid(result, "start_mb")
        rows.append([
            result["name"],
            f"{mid(result, 'cpu_us') * tasks / 1e6:.2f}",
            f"{mid(result, 'cpu_us'):.1f} ({factor(mid(result, 'cpu_us') / first)})",
            f"{mid(result, 'rate'):,.0f}",
            f"{mid(result, 'hop_us') / result['ping_pong_us']:.1f}" if result["shape"] == "chain" else "",
            f"{start:.0f} → {start + mid(result, 'held_bytes') * tasks / 1e6:,.0f}",
            f"{start + mid(result, 'peak_bytes') * tasks / 1e6:,.0f}",
            f"{start * mid(result, 'released_share'):,.0f}",
        ])  # fmt: skip
        for window, wait in result["runs"][-1]["waits"].items():
            if tasks > 50_000:
                stalls.append(
                    [result["name"], window, wait["count"], *(f"{wait[key]:.1f}" for key in ("p50", "p99", "max"))]
                )
    head = ["program", "CPU s", f"CPU µs/task (to {results[0]['name']})", "tasks/s", "round trips a hop"]
    text = table([*head, "RSS MB, before → held", "at most", "after release"], rows)
    return f"{text}\n\n{table(['program', 'while the graph is', 'answers', 'p50 ms', 'p99 ms', 'longest ms'], stalls)}"
