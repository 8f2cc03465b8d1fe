"""Clients and workers of different releases are served and told; what no test has seen is refused in one sentence."""

import distributed
import pytest
from distributed import Client
from distributed.versions import VersionMismatchWarning, get_versions

from test_workers import registration, say


@pytest.fixture
def other(shared):
    """A release that is served, and neither that of the Clients here nor of a worker."""
    here = {distributed.__version__, *shared.observer.run(lambda: distributed.__version__).values()}
    return next(release for release in ("2025.11.0", "2026.3.0", "2026.8.0") if release not in here)


def versions(distributed_release, dask_release):
    ours = get_versions()
    packages = {**ours["packages"], "distributed": distributed_release, "dask": dask_release}
    return {**ours, "packages": packages}


@pytest.fixture
def as_another(monkeypatch):
    """Clients of this process take themselves for those of another release."""

    def be(*releases):
        said = versions(*releases)
        monkeypatch.setattr("distributed.versions.get_versions", lambda **_: said)

    return be


def test_a_client_of_another_release_than_the_workers_is_told(shared, other, as_another):
    as_another(other, other)
    with pytest.warns(VersionMismatchWarning, match=rf"\| distributed +\| {other} +\| 20"):
        client = Client(shared.address, set_as_default=False)
    with client:
        assert client.submit(sum, [1, 2]).result() == 3


def test_a_worker_of_another_release_than_the_others_is_told(shared, other):
    [answer] = say(shared.address, registration(versions=versions(other, other)))
    assert answer["status"] == "OK"
    assert "| Package " in answer["warning"] and f"| {other} " in answer["warning"]


def test_a_client_that_is_not_served_raises_and_says_which_releases_are(shared, as_another):
    as_another("2024.1.0", "2024.1.0")
    sentence = "distributed 2024.1.0 is not supported; supported are the releases from 2025.11.0 to 2026.8.0"
    with pytest.raises(ImportError, match=sentence):
        Client(shared.address, set_as_default=False)


def test_dask_has_to_go_with_distributed(shared):
    [answer] = say(shared.address, registration(versions=versions("2026.7.1", "2026.7.0")))
    sentence = "dask 2026.7.0 does not go with distributed 2026.7.1, which needs dask 2026.7.1"
    assert (answer["status"], answer["message"]) == ("error", sentence)
