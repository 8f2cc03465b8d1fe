"""Workers that refuse what nobody needs to ask of them, as docs/security.md has it."""

import os
import pathlib
import re

import dask.array as da
import pytest
from conformance_tasks import inc
from distributed import Client
from harness import served, workers_of

GUIDE = pathlib.Path(__file__).parents[2] / "docs" / "security.md"


def test_workers_work_with_blocked_handlers(tmp_path):
    [blocked] = re.findall(r'BLOCKED_HANDLERS\n +value: "([^"]+)"', GUIDE.read_text())
    with served(tmp_path) as mainstay, Client(mainstay.address) as client:
        for name in ("one", "two"):
            mainstay.start_worker(name=name, DASK_DISTRIBUTED__WORKER__BLOCKED_HANDLERS=blocked)
        client.wait_for_workers(2)
        array = da.ones((300, 300), chunks=(100, 100)).persist()
        assert (array @ array.T).sum().compute() == 300**3
        [scattered] = client.scatter([5], broadcast=True)
        assert client.submit(inc, scattered).result() == 6
        client.replicate(array)
        client.rebalance()
        [first, _] = workers_of(client)
        client.retire_workers([first])
        assert array.sum().compute() == 300**2
        with pytest.raises(Exception, match="run"):
            client.run(os.getpid)
