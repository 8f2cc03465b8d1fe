#!/usr/bin/env python3
"""Clients for `clients.py`: ROLE ADDRESS [COUNT]. Goes on until its input ends, and prints what it saw as JSON.

`crowd` is COUNT Clients that come, ask for a few small things, and go; `probe` is one that asks again and again, and times the
answers; `slow` holds results, says so with a line, and is stopped by who started it.
"""

import asyncio
import gc
import json
import random
import sys
import threading
import time

from distributed import Client, wait
from shapes import one

ASKS = 5
PAUSE_SECONDS = 1
PROBE_PAUSE_SECONDS = 0.02
HELD = 20_000


async def crowd(address, count, ended):
    """Each Client stays for some seconds, and another one follows it."""
    visits = 0

    async def visitor(number):
        nonlocal visits
        draw = random.Random(number)
        await asyncio.sleep(draw.uniform(0, ASKS * PAUSE_SECONDS))
        while not ended.is_set():
            async with Client(address, asynchronous=True, set_as_default=False) as client:
                with client.as_current():
                    for _ in range(ASKS):
                        await wait(client.map(one, range(3), pure=False))
                        await asyncio.sleep(draw.uniform(0.5, 1.5) * PAUSE_SECONDS)
            visits += 1

    await asyncio.gather(*(visitor(number) for number in range(count)))
    return {"visits": visits}


async def probe(address, ended):
    """[time, seconds] of each round trip of a small task."""
    answers = []
    async with Client(address, asynchronous=True) as client:
        gc.freeze()
        while not ended.is_set():
            began = time.time()
            await wait(client.submit(one, pure=False))
            answers.append([began, time.time() - began])
            await asyncio.sleep(PROBE_PAUSE_SECONDS)
    return {"answers": answers}


def slow(address):
    """Its results are in memory, and it does not listen when it would be told of as many again."""
    client = Client(address)
    held = client.map(one, range(HELD), pure=False)
    wait(held)
    more = client.map(one, range(HELD), pure=False)
    print(len(more), flush=True)
    threading.Event().wait()


def main(role, address, count="1"):
    if role == "slow":
        slow(address)
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    work = probe(address, ended) if role == "probe" else crowd(address, int(count), ended)
    print(json.dumps(asyncio.run(work)))


if __name__ == "__main__":
    main(*sys.argv[1:])
