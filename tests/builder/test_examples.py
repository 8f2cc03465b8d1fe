"""The manifests of `examples/`: each builds, runs, and gives what Dask or pandas gives."""

import pathlib
import sys

import numpy as np
import pandas as pd
import pytest
import yaml
from conftest import outputs

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"
sys.path.insert(0, str(EXAMPLES))


def manifests(name):
    return list(yaml.safe_load_all((EXAMPLES / f"{name}.yaml").read_text()))


def build(builder, manifest, source=None, inputs=None):
    """The request that Mainstay makes of a manifest."""
    spec = manifest["spec"]
    source = source or spec["source"]
    request = {
        "name": manifest["metadata"]["name"],
        "label": "uid",
        "collections": spec.get("collections", []),
        "parameters": spec.get("parameters", {}),
        "inputs": inputs or {},
    }
    [(kind, value)] = source.items()
    fields = {
        "python": lambda: {"source": value},
        "entrypoint": lambda: value,
        "tasks": lambda: {"tasks": value},
    }[kind]()
    return builder.ask("build", {"kind": kind, **request, **fields})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small table in the form of the flights."""
    path = tmp_path_factory.mktemp("flights")
    random = np.random.default_rng(1)
    for month in range(1, 13):
        count = 200
        delay = random.normal(5, 30, count).round()
        delay[random.random(count) < 0.05] = np.nan
        table = pd.DataFrame(
            {
                "month": month,
                "carrier": random.choice(["UA", "AA", "B6"], count),
                "dest": random.choice(["IAH", "MIA", "BQN", "ATL", "ORD", "SFO"], count),
                "dep_delay": delay + 1,
                "arr_delay": delay,
                "air_time": random.integers(40, 400, count).astype(float),
                "distance": random.integers(200, 2500, count),
            }
        )
        table.to_parquet(path / f"2013-{month:02}.parquet", index=False)
    return str(path)


def test_flights(builder, folder):
    import read

    [manifest] = manifests("flights")
    manifest["spec"]["parameters"]["paths"] = [folder]
    document = build(builder, manifest)
    found = builder.read(document)
    table = found["flights"]
    read.check(folder, found["delays"].sort_index(), table.groupby("dest").speed.mean().nlargest(5))
    assert [output["type"] for output in document["outputs"]] == ["DataFrame", "DataFrame"]


def test_array(builder):
    [manifest] = manifests("array")
    found = builder.read(build(builder, manifest))
    np.testing.assert_allclose(found["correlation"], np.corrcoef(found["samples"], rowvar=False))


def test_tasks(builder):
    [manifest] = manifests("tasks")
    assert 3.3 < builder.read(build(builder, manifest))["mean"] < 3.7


def test_entrypoint_and_what_is_made_of_it(builder):
    base, other = manifests("entrypoint")
    first = build(builder, base)
    futures = builder.persist(first)
    output = outputs(first)["timeseries"]
    document = build(builder, other, inputs={"timeseries": [output["header"], output["frames"]]})
    found = builder.read(document)["by_name"]
    table = builder.dataset(output).compute()
    pd.testing.assert_frame_equal(found.sort_index(), table.groupby("name").agg({"x": "mean", "id": "max"}))
    del futures


def test_configmap(builder):
    config, manifest = manifests("configmap")
    result = builder.read(build(builder, manifest, {"python": config["data"]["primes.py"]}))
    assert result["count"] == len(result["primes"]) == 9592
