"""Networks that are cut for a while, in namespaces of the tests' own: what was held is there afterwards, and made once.

Mainstay and the Client are on a bridge; each worker is at the other end of a cable.
"""

import contextlib
import ctypes
import os
import shutil
import subprocess
import time

import pytest
from conformance_tasks import inc, note, runs, total
from distributed import Client, wait
from harness import await_condition, served

CLONE_NEWNET = 0x40000000
NETWORK = "10.99.0"
SLOW = "root tbf rate 1mbit burst 16kb latency 400ms"
LOSSY = "INPUT -m statistic --mode random --probability 0.02 -j DROP"
# Stock workers give up a silent connection after 30 s, as long as they are cut off here.
PATIENT = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "90s"}


def run(*words):
    subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True)


def may_make_networks():
    if os.geteuid() or not all(map(shutil.which, ("ip", "iptables", "nsenter", "tc"))):
        return False
    probe = f"ip link add name probe type bridge && tc qdisc add dev probe {SLOW} && iptables -A {LOSSY}"
    return not subprocess.run(["unshare", "--net", "sh", "-c", probe], capture_output=True).returncode


pytestmark = pytest.mark.skipif(not may_make_networks(), reason="takes root, iproute2 and iptables, and a kernel that has all of it")


def enter(path):
    """Moves this thread to a network namespace; what it starts is there too."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), path)
    finally:
        os.close(descriptor)


class Network:
    """A bridge here, and a namespace for each worker."""

    def __init__(self, stack):
        self.stack, self.count = stack, 0
        for words in ("link set lo up", "link add name bridge type bridge", f"address add {NETWORK}.1/24 dev bridge"):
            run("ip", *words.split())
        run("ip", "link", "set", "bridge", "up")

    def add(self):
        """A namespace at the end of a cable. Gives its holder and the name of this end of the cable."""
        self.count += 1
        holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        self.stack.callback(holder.wait)
        self.stack.callback(holder.kill)
        mine = os.readlink("/proc/self/ns/net")
        await_condition(lambda: os.readlink(f"/proc/{holder.pid}/ns/net") != mine, "it has a namespace of its own")
        cable = f"worker{self.count}"
        run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", holder.pid)
        run("ip", "link", "set", cable, "master", "bridge", "up")
        for words in (f"address add {NETWORK}.{10 + self.count}/24 dev eth0", "link set eth0 up", "link set lo up"):
            run("nsenter", "--net", "--target", holder.pid, "ip", *words.split())
        return holder.pid, cable


@contextlib.contextmanager
def pulled(cable):
    """Nothing comes through in either direction."""
    run("ip", "link", "set", cable, "down")
    try:
        yield
    finally:
        run("ip", "link", "set", cable, "up")


@contextlib.contextmanager
def deaf(pid, source=f"{NETWORK}.0/24"):
    """A worker hears nothing of the others, who may hear it."""
    rule = ["INPUT", "-s", source, "-j", "DROP"]
    run("nsenter", "--net", "--target", pid, "iptables", "-A", *rule)
    try:
        yield
    finally:
        run("nsenter", "--net", "--target", pid, "iptables", "-D", *rule)


@contextlib.contextmanager
def slow(pid, cable):
    """What a worker is sent comes at a megabit a second, and one packet of fifty is lost."""
    run("tc", "qdisc", "add", "dev", cable, *SLOW.split())
    run("nsenter", "--net", "--target", pid, "iptables", "-A", *LOSSY.split())
    try:
        yield
    finally:
        run("nsenter", "--net", "--target", pid, "iptables", "-D", *LOSSY.split())
        run("tc", "qdisc", "delete", "dev", cable, "root")


def let_pass(seconds):
    end = time.monotonic() + seconds
    await_condition(lambda: time.monotonic() > end, "time passes")


@pytest.fixture
def network():
    outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, outside)
        if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        stack.callback(enter, f"/proc/self/fd/{outside}")
        yield Network(stack)


@pytest.fixture
def cluster(network, tmp_path):
    """A scheduler with two workers, each behind a cable; what the first holds, and how to cut it off."""
    with served(tmp_path / "run", "--host", f"{NETWORK}.1") as mainstay:
        places = {}
        for name in ("first", "second"):
            pid, cable = network.add()
            places[name] = pid, cable
            mainstay.start_worker(name=name, within=["nsenter", "--net", f"--target={pid}"], **PATIENT)
        with Client(mainstay.address) as client:
            client.wait_for_workers(2)
            here = {"workers": "first", "allow_other_workers": True}
            held = [client.submit(note, tmp_path / f"held-{index}", index, **here) for index in range(10)]
            wait(held)
            yield client, held, places
            # It is there again, what it held was made once, and it works.
            assert client.submit(total, held, workers="second").result() == 45
            assert [runs(tmp_path / f"held-{index}") for index in range(10)] == [1] * 10
            assert client.submit(inc, 1, workers="first", pure=False).result() == 2


def have_others_work(client, seconds):
    """Has others go on for so long, as they do as soon as it is known who is silent."""
    others = client.map(inc, range(10), workers="second")
    let_pass(seconds)
    assert seconds < 20 or all(future.done() for future in others)
    return others


@pytest.mark.parametrize("seconds", [1, 30])
def test_a_worker_that_is_cut_off_loses_nothing(cluster, seconds):
    client, _, places = cluster
    with pulled(places["first"][1]):
        others = have_others_work(client, seconds)
    assert client.gather(others) == list(range(1, 11))


@pytest.mark.parametrize("seconds", [1, 30])
def test_a_worker_that_hears_nobody_loses_nothing(cluster, seconds):
    client, _, places = cluster
    with deaf(places["first"][0]):
        others = have_others_work(client, seconds)
    assert client.gather(others) == list(range(1, 11))


def test_workers_that_cannot_reach_each_other_go_on_when_they_can(cluster):
    client, held, places = cluster
    with deaf(places["first"][0], f"{NETWORK}.12"), deaf(places["second"][0], f"{NETWORK}.11"):
        sum_of_all = client.submit(total, held, workers="second")
        assert client.submit(inc, 1, workers="first", pure=False).result() == 2
        let_pass(15)
    assert sum_of_all.result() == 45


def test_a_slow_network_to_one_worker_holds_up_no_other(cluster):
    client, _, places = cluster
    with slow(*places["first"]):
        # Twelve seconds of its network.
        read = client.submit(len, client.submit(bytes, 1_500_000, workers="second"), workers="first")
        far = client.map(inc, range(20), workers="first", pure=False)
        near = client.map(inc, range(20), workers="second", pure=False)
        assert client.gather(near) == list(range(1, 21))
        assert read.status == "pending"
        assert client.gather(far) == list(range(1, 21)) and read.result() == 1_500_000
        assert "worker-silent" not in [event["action"] for _, event in client.get_events("all")]
