"""What the faults of stock workers cost: how long it takes until all is there again, and what ran once more for it."""

import signal
import threading
import time

from distributed import Client, wait
from figures import table
from process import await_condition
from sides import NAMES, side

TITLE = "Faults of workers"
WORKERS = 3
# So many results are there before the fault, and so many tasks are under way: without one they take five seconds.
HELD, UNDER_WAY = 30, 60
TASK_SECONDS = 0.25
STOPPED_SECONDS = 30
# Nobody waits for longer.
PATIENCE_SECONDS = 120


def work(notes, number, seconds):
    with open(notes, "a") as file:
        file.write(f"{number}\n")
    time.sleep(seconds)
    return number


def nothing(one, workers):
    pass


def kill(one, workers):
    workers[0].child.kill()


def terminate(one, workers):
    workers[0].child.terminate()


def kill_all(one, workers):
    for worker in workers:
        worker.child.kill()
    one.start_worker(one.address, "another", "--host", "127.0.0.1")


def stop(one, workers):
    child = workers[0].child
    one.stack.callback(child.send_signal, signal.SIGCONT)
    child.send_signal(signal.SIGSTOP)


def pause(one, workers):
    stop(one, workers)
    timer = threading.Timer(STOPPED_SECONDS, workers[0].child.send_signal, [signal.SIGCONT])
    one.stack.callback(timer.cancel)
    timer.start()


FAULTS = {
    "nothing": nothing,
    "one is killed, as for its memory": kill,
    "one is told to end, as by an eviction": terminate,
    f"one is stopped for {STOPPED_SECONDS} s": pause,
    "one is stopped for good": stop,
    "all are killed, and one starts": kill_all,
}


def measure(name, fault):
    with side(name, has_builder=False) as one:
        workers = [
            one.start_worker(one.address, f"worker-{number}", "--host", "127.0.0.1") for number in range(WORKERS)
        ]
        with Client(one.address) as client:
            one.await_workers(client, WORKERS)
            notes = one.folder / "notes"
            held = client.map(work, *same(notes, range(HELD), 0), pure=False)
            wait(held)
            under_way = client.map(work, *same(notes, range(HELD, HELD + UNDER_WAY), TASK_SECONDS), pure=False)
            await_condition(lambda: len(notes.read_text().split()) >= HELD + WORKERS, "tasks run")
            began = time.time()
            fault(one, workers)
            computed = seconds_until(lambda left: wait(under_way, timeout=left), began)
            # Whoever computes this reads all of them.
            total = client.submit(sum, held + under_way, pure=False)
            read = seconds_until(lambda left: total.result(timeout=left), began)
            numbers = notes.read_text().split()
            return {"computed": computed, "read": read, "again": len(numbers) - len(set(numbers))}


def same(notes, numbers, seconds):
    return [str(notes)] * len(numbers), numbers, [seconds] * len(numbers)


def seconds_until(done, began):
    """`None` when that takes too long."""
    try:
        done(max(0.1, began + PATIENCE_SECONDS - time.time()))
    except TimeoutError:
        return None
    return time.time() - began


def run(is_quick, say, wanted=""):
    results = []
    for name, fault in FAULTS.items():
        if wanted in name and not (is_quick and fault in (stop, pause)):
            pair = {side_name: measure(side_name, fault) for side_name in NAMES}
            say(f"{name}: " + " → ".join(shown(pair[side_name]["read"]) for side_name in NAMES) + " s")
            results.append({"name": name, "pairs": [pair]})
    return results


def shown(seconds):
    return f"over {PATIENCE_SECONDS}" if seconds is None else f"{seconds:.1f}"


def show(results):
    rows = []
    for result in results:
        [pair] = result["pairs"]
        stock, ours = (pair[name] for name in NAMES)
        times = [f"{shown(stock[figure])} → {shown(ours[figure])}" for figure in ("computed", "read")]
        rows.append([result["name"], *times, f"{stock['again']} → {ours['again']}"])
    return table(["what happens to three workers", "s until all is computed", "s until all can be read", "ran again"], rows)
