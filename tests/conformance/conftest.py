"""Stock `dask worker` processes and unmodified Clients against the real `mainstay`, on loopback.

Where there is a result it is compared with that of dask without a scheduler, of NumPy or of pandas.
"""

import pathlib
import re
import sys

import pytest
from distributed import Client

TESTS = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(pathlib.Path(__file__).parent), str(TESTS), str(TESTS / "modules")]

from harness import await_condition, pytest_sessionstart, served, workers_of  # noqa: E402, F401

# Tests of what a release of Dask has a part in: messages of Clients, graphs, pickles. Those of workers that die, and of bytes
# and manifests that are wrong, are not.
OF_RELEASES = {"client", "collections", "inside_tasks", "manifests", "releases", "shuffle"}
NOT_OF_RELEASES = re.compile("killed|hangs|retired|leaves|dies|lost|joins|mended")


def pytest_configure(config):
    config.addinivalue_line("markers", "releases: depends on the release of dask; added by conftest.py")


def pytest_collection_modifyitems(items):
    for item in items:
        suite = item.path.stem.removeprefix("test_")
        # The keeper relies on what each release has inside.
        if suite == "keeper" or (suite in OF_RELEASES and not NOT_OF_RELEASES.search(item.name)):
            item.add_marker(pytest.mark.releases)


@pytest.fixture(scope="session")
def shared(tmp_path_factory):
    """A scheduler with two workers, for all tests that leave it as they found it."""
    with served(tmp_path_factory.mktemp("shared")) as mainstay:
        mainstay.start_worker("--resources", "GPU=2", name="alice", threads=2)
        mainstay.start_worker(name="bob", nanny=True)
        with Client(mainstay.address, set_as_default=False) as observer:
            observer.wait_for_workers(2)
            mainstay.observer = observer
            yield mainstay


@pytest.fixture
def mainstay(tmp_path):
    """A scheduler of the test's own."""
    with served(tmp_path / "run") as mainstay:
        yield mainstay


@pytest.fixture
def client(shared):
    """A Client of the shared scheduler; nothing may be left on the workers once it has gone."""
    with Client(shared.address) as client:
        yield client

    def left():
        return {worker: keys for worker, keys in shared.observer.has_what().items() if keys}

    await_condition(lambda: not left(), lambda: f"still on the workers: {left()}")


@pytest.fixture
def address_of(shared):
    """The addresses of the shared workers by name."""
    workers = workers_of(shared.observer)
    return {worker["name"]: address for address, worker in workers.items()}
