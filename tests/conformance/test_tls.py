"""Comms over TLS: who has a certificate of the authority is served, nobody else gets anywhere, and certificates change
while everything goes on.
"""

import contextlib
import socket
import ssl
import time

import dask.array as da
import msgpack
import pytest
from authority import Authority
from conformance_tasks import inc
from distributed import Client
from harness import await_condition, served, workers_of
from hostile import HANDSHAKE, assert_dropped, frames, message

# A handshake has 5 s.
HANDSHAKE_SECONDS = 8


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ours") / "authority")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("others") / "authority")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, authority):
    """A scheduler with two workers, one with a nanny, and a Client."""
    folder = tmp_path_factory.mktemp("guarded")
    with served(folder, *authority.give("scheduler").flags, log="info") as mainstay:
        files = authority.give("worker")
        mainstay.start_worker(*files.flags, name="plain", threads=2)
        mainstay.start_worker(*files.flags, name="nannied", nanny=True)
        with Client(mainstay.address, security=files.security, set_as_default=False) as client:
            client.wait_for_workers(2)
            mainstay.client = client
            yield mainstay


def test_workers_and_clients_are_served(guarded):
    client = guarded.client
    assert guarded.address.startswith("tls://")
    workers = workers_of(client)
    assert len(workers) == 2 and all(address.startswith("tls://") for address in workers)
    assert client.submit(inc, 1).result() == 2
    # Through the scheduler, larger than what a socket takes at once, both ways.
    text = b"x" * 30_000_000
    [scattered] = client.scatter([text])
    assert client.gather(scattered, direct=False) == text
    assert client.submit(len, scattered, pure=False).result() == len(text)
    # From worker to worker.
    array = da.ones((400, 400), chunks=(100, 100))
    assert client.compute((array @ array.T).sum()).result() == 400**3
    futures = client.map(inc, range(2000))
    assert sum(client.gather(futures)) == sum(range(1, 2001))


def test_graphs_are_built(guarded):
    persisted = guarded.client.persist(da.arange(10, chunks=5) + 1)
    assert guarded.client.compute(persisted.sum()).result() == 55


def connect(port, files=None, authorities=None):
    """A TLS connection of Python's own."""
    context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=authorities or files.authorities)
    context.check_hostname = False
    if files:
        context.load_cert_chain(files.certificate, files.key)
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=10))


def is_let_in(port, files=None, authorities=None):
    """Whether a comm comes about: the other side's handshake arrives."""
    try:
        with connect(port, files, authorities) as connection:
            connection.sendall(HANDSHAKE)
            return bool(connection.recv(1))
    except (ssl.SSLError, ConnectionError):
        return False


def test_only_certificates_of_the_authority_are_let_in(guarded, authority, stranger):
    port = guarded.port
    assert is_let_in(port, authority.give("another"))
    # Not even to be told whose certificate it is: what it believes is of no help without one.
    assert not is_let_in(port, authorities=authority.file)
    foreign = stranger.give("another")
    foreign.authorities = authority.file
    assert not is_let_in(port, foreign)
    assert not is_let_in(port, authority.give("expired", days=-1))
    assert guarded.client.submit(inc, 2, pure=False).result() == 3


def test_a_worker_that_is_not_encrypted_is_dropped(guarded, tmp_path):
    """It gets no answer that it could read: the log says why."""
    started = len(guarded.process.output)
    guarded.folder = tmp_path
    worker = guarded.start_worker(name="naked", threads=1, address=guarded.address.replace("tls", "tcp"))
    await_condition(lambda: "it does not speak TLS" in guarded.process.output[started:], guarded.process.output, 30)
    worker.end()
    assert len(workers_of(guarded.client)) == 2


def test_bytes_that_are_no_handshake(guarded, authority):
    marker = guarded.folder / "marker"
    pickled = b"c__builtin__\nopen\n(S'%s'\nS'w'\ntR." % str(marker).encode()
    pickle_frame = frames(msgpack.packb({"x": {"__Pickled__": 1}}), pickled)
    for nonsense in (b"GET / HTTP/1.1\r\n\r\n", HANDSHAKE, pickle_frame, bytes(1000), b"\x16\x03\x01\xff\xff" + b"\x01" * 70_000):
        with socket.create_connection(("127.0.0.1", guarded.port), timeout=10) as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(nonsense)
            assert_dropped(connection, HANDSHAKE_SECONDS)
    # With a certificate it is a peer that sends nonsense: dropped as well, and nothing is loaded.
    for nonsense in (pickle_frame, HANDSHAKE + pickle_frame, HANDSHAKE + message({"no": "op"})):
        with connect(guarded.port, authority.give("peer")) as connection:
            connection.sendall(nonsense)
            assert_dropped(connection, HANDSHAKE_SECONDS)
    assert not marker.exists()


def test_silent_peers_are_closed_and_hold_up_nobody(guarded):
    """Two hundred that never begin to shake hands, and a worker that is asked meanwhile."""
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(socket.create_connection(("127.0.0.1", guarded.port), timeout=10)) for _ in range(200)]
        assert guarded.client.submit(inc, 7, pure=False).result(timeout=10) == 8
        for connection in peers:
            assert_dropped(connection, max(0.1, started + HANDSHAKE_SECONDS + 5 - time.monotonic()))


def subject(port, files):
    """Whose certificate is shown at a port, if it is one that is believed."""
    with contextlib.suppress(ssl.SSLError), connect(port, files) as connection:
        return dict(pair[0] for pair in connection.getpeercert()["subject"])["commonName"]


def test_certificates_change_while_everything_goes_on(tmp_path, authority, stranger):
    """Another leaf, then another authority, which is believed before it is used and the old one after."""
    files = authority.give("first").copy_to(tmp_path / "mounted")
    with served(tmp_path / "run", *files.flags) as mainstay:
        worker = mainstay.start_worker(*files.flags, name="only", nanny=True)
        with Client(mainstay.address, security=authority.give("reader").security) as client:
            client.wait_for_workers(1)
            held = client.submit(inc, 1)
            assert held.result() == 2
            [address] = workers_of(client)
            nanny = workers_of(client)[address]["nanny"]
            ports = [int(each.rsplit(":", 1)[1]) for each in (mainstay.address, address, nanny)]
            old, new = authority.give("old"), stranger.give("new")

            def await_everywhere(what, probe):
                await_condition(lambda: all(map(probe, ports)), lambda: f"{what}: {[*map(probe, ports)]}", 30)

            files.become(authority.give("second"))
            await_everywhere("another leaf is shown", lambda port: subject(port, old) == "second")
            # The next authority is believed, and the present one signs.
            files.become(new, authority.give("third"))
            new.authorities = authority.file
            await_everywhere("the next authority is believed", lambda port: is_let_in(port, new))
            # The next one signs, and the one before is still believed.
            files.become(authority.give("fourth"), stranger.give("fifth"))
            new.authorities = stranger.file
            await_everywhere("the next authority signs", lambda port: subject(port, new) == "fifth")
            assert all(is_let_in(port, in_hands_of(old, stranger)) for port in ports)
            # The old one is not believed any more; by workers it is until they start anew.
            files.become(stranger.give("sixth"))
            await_condition(lambda: not is_let_in(mainstay.port, in_hands_of(old, stranger)), "the old authority is believed")
            # Over all of this the comms have stayed.
            assert client.submit(inc, held).result() == 3
            assert len(workers_of(client)) == 1 and worker.is_alive()
        with Client(mainstay.address, security=stranger.give("reader").security) as late:
            assert late.submit(inc, 5, pure=False).result() == 6


def in_hands_of(files, authority):
    """A certificate of one authority in the hands of who believes another."""
    return type(files)(authority.file, files.certificate, files.key)
