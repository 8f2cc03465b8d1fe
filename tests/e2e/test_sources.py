"""Where graphs come from, and what can be kept."""

from kubectl import ROOT
from objects import collection, config_map, secret, workers

PRIMES = """\
import dask.bag as db
primes = db.from_sequence(range(2, params["below"]), npartitions=4)
primes = primes.filter(lambda number: all(number % divisor for divisor in range(2, number)))
"""
CONFIDENTIAL = "swordfish"
KINDS = """\
import dask.array as da
import dask.bag as db
import pandas as pd
import dask.dataframe as dd
from dask import delayed

array = da.arange(100, chunks=10) ** 2
bag = db.from_sequence(["a", "b", "a"], npartitions=2).frequencies()
frame = dd.from_pandas(pd.DataFrame({"x": range(9), "y": [1, 2, 3] * 3}), npartitions=3).groupby("y").x.sum()
later = delayed(sum)([delayed(pow)(number, 2) for number in range(4)])
several = {"one": delayed(int)("1"), "all": [delayed(int)("2"), 3]}
plain = {"limit": 42, "names": ["a", "b"]}
"""
ANSWERS = """
def value(name):
    return client.get_dataset(name)

import dask
primes = sorted(value("primes-of-a-config-map").compute())
answer = {
    "array": int(value("kinds/array").sum().compute()),
    "bag": dict(value("kinds/bag").compute()),
    "frame": value("kinds/frame").compute().sort_index().tolist(),
    "later": value("kinds/later").compute(),
    "several": dask.compute(value("kinds/several"))[0],
    "plain": dask.compute(value("kinds/plain"))[0],
    "primes": primes,
    "confidential": client.gather(value("confidential")) if not hasattr(value("confidential"), "compute")
        else value("confidential").compute(),
    "correlation": value("correlation/correlation").compute().shape,
    "diagonal": float(value("correlation/correlation").compute().diagonal().min()),
    "dice": value("dice").compute(),
    "names": value("by-name").compute().shape[1],
    "rows": len(value("timeseries")),
    "datasets": sorted(client.list_datasets()),
}
"""


def test_every_kind_of_source_persists(with_temp_namespace, operator):
    story = with_temp_namespace
    reference = {"pythonFrom": {"configMapKeyRef": {"name": "later", "key": "primes.py"}}}
    hidden = {"pythonFrom": {"secretKeyRef": {"name": "hidden", "key": "source.py"}}}
    broken = {"pythonFrom": {"secretKeyRef": {"name": "hidden", "key": "broken.py"}}}
    raising = {"pythonFrom": {"secretKeyRef": {"name": "hidden", "key": "raising.py"}}}
    story.apply(
        workers("workers", replicas=2),
        collection("primes-of-a-config-map", reference, ["primes"], parameters={"below": 100}),
        secret("hidden", **{
            "source.py": f"from dask import delayed\nword = delayed(len)('{CONFIDENTIAL}')\n",
            "broken.py": f"word = '{CONFIDENTIAL}'\nword = = '{CONFIDENTIAL}'\n",
            "raising.py": f"word = '{CONFIDENTIAL}'\nraise ValueError(f'not {{word}}')\n",
        }),
        collection("confidential", hidden, ["word"]),
        collection("confidential-broken", broken, ["word"]),
        collection("confidential-raising", raising, ["word"]),
        collection("kinds", KINDS, ["array", "bag", "frame", "later", "several", "plain"]),
    )
    for name in ("array", "entrypoint", "tasks"):
        story.apply_file(ROOT / "examples" / f"{name}.yaml")

    # A ConfigMap that is not there, then lacks the key, then has it.
    message = story.await_reason("primes-of-a-config-map", "SourceNotFound", "SourceResolved")
    assert message == "ConfigMap `later` is not there; create it, and it is picked up"
    story.await_event("primes-of-a-config-map", "Warning", "SourceNotFound")
    story.apply(config_map("later", **{"else.py": "x = 1"}))
    message = story.await_reason("primes-of-a-config-map", "SourceKeyNotFound", "SourceResolved")
    assert message == "ConfigMap `later` is there, but has no key `primes.py`; it has else.py"
    story.apply(config_map("later", **{"primes.py": PRIMES}))

    assert "line 2" in story.await_reason("confidential-broken", "SyntaxError")
    assert "ValueError" in story.await_reason("confidential-raising", "SourceRaised")
    for name in ("kinds", "confidential", "correlation", "timeseries", "by-name", "dice", "primes-of-a-config-map"):
        story.await_ready(name)

    answers = story.run_client(ANSWERS)
    assert 3.0 < answers.pop("dice") < 4.0
    assert abs(answers.pop("diagonal") - 1.0) < 1e-9
    assert answers == {
        "array": sum(number**2 for number in range(100)),
        "bag": {"a": 2, "b": 1},
        "frame": [9, 12, 15],
        "later": 14,
        "several": {"one": 1, "all": [2, 3]},
        "plain": {"limit": 42, "names": ["a", "b"]},
        "primes": [number for number in range(2, 100) if all(number % divisor for divisor in range(2, number))],
        "confidential": len(CONFIDENTIAL),
        "correlation": [100, 100],
        "names": 2,
        "rows": 14 * 24 * 60,
        "datasets": sorted([
            "kinds", "correlation", "kinds/array", "kinds/bag", "kinds/frame", "kinds/later", "kinds/several", "kinds/plain", "confidential",
            "confidential/word", "correlation/correlation", "correlation/samples", "dice", "dice/mean", "by-name",
            "by-name/by_name", "timeseries", "timeseries/timeseries", "primes-of-a-config-map",
            "primes-of-a-config-map/primes"]),
    }

    # The text of a Secret is nowhere to be read.
    assert CONFIDENTIAL not in story.kubectl("get", "pcol", "--output=json")
    assert CONFIDENTIAL not in story.kubectl("get", "events", "--output=json")
    assert CONFIDENTIAL not in operator.logs()
