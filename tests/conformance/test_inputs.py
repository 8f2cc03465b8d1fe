"""`spec.inputs`: collections that read outputs of others, of any kind, in any kind of source."""

import contextlib
import re

import dask
import numpy as np
import pandas as pd
import pytest
from conformance_tasks import runs
from distributed import Client
from harness import REPOSITORY, Mainstay, run_local
from test_manifests import collection

# Each of its tasks notes that it runs.
BASE = """
import dask
import dask.array as da
import dask.bag as db
import dask.dataframe as dd
import numpy as np
import pandas as pd
from conformance_tasks import note

def noted(value):
    note(params["notes"])
    return value

def load(n):
    return noted(pd.DataFrame({"k": [n, n + 1], "v": [1.0, 2.0]}))

array = da.map_blocks(noted, da.arange(6, chunks=2), meta=np.array((), dtype=int))
frame = dd.from_map(load, [0, 1, 2], meta=pd.DataFrame({"k": [0], "v": [1.0]}))
bag = db.from_sequence(["a", "b", "a"], npartitions=3).map(noted)
later = dask.delayed(noted)(7)
plain = {"limit": 3, "names": ["x"]}
nested = {"array": array + 1, "all": [dask.delayed(noted)(20), 5]}
"""
# Runs of `noted` above: blocks, partitions of two kinds, and two single values.
NOTED = 3 + 3 + 3 + 1 + 1
INPUTS = "{" + ", ".join(
    f"{name}: {{persistedCollection: base, output: {name}}}" for name in ("array", "frame", "bag", "later", "plain", "nested")
) + "}"
READS = """
import dask

doubled = array * 2
total = array.sum()
by_k = frame.groupby("k").v.sum()
counts = bag.frequencies()
sum_of_all = dask.delayed(lambda later, plain, bag: later + plain["limit"] + len(bag))(later, plain, bag)
repacked = {"first": nested["array"].sum(), "second": nested["all"][0], "third": nested["all"][1]}
same = frame
"""
INLINE = """  source:
    tasks:
    - {key: length, call: "builtins:len", args: [{input: frame}]}
    - {key: sums, call: "conformance_tasks:sums", kwargs: {array: {input: array}, bag: {input: bag}, nested: [{input: nested}]}}
    - {key: both, call: "conformance_tasks:add", args: [{task: length}, {input: later}]}
    - {key: limit, call: "operator:getitem", args: [{input: plain}, limit]}
"""


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    names = ["doubled", "total", "by_k", "counts", "sum_of_all", "repacked", "same"]
    # What reads comes first: the order of the manifest says nothing.
    (folder / "readers.yaml").write_text("".join([
        collection("chained", "more = total + 1", ["more"], inputs="{total: {persistedCollection: python, output: total}}"),
        collection("python", READS, names, inputs=INPUTS),
        collection("raw", READS, names, inputs=INPUTS, optimizeGraph="false"),
        collection("entry", '  source: {entrypoint: {callable: "conformance_sources:of_inputs", kwargs: {by: 3}}}\n',
                   ["scaled", "counted"], inputs=INPUTS),
        collection("inline", INLINE, ["sums", "both", "limit"], inputs=INPUTS),
    ]))
    (folder / "base.yaml").write_text(
        collection("base", BASE, ["array", "frame", "bag", "later", "plain", "nested"], parameters=f"{{notes: {folder}/runs}}"))
    with contextlib.ExitStack() as stack:
        mainstay = Mainstay(folder, "-f", "readers.yaml", "-f", "base.yaml", "--workers", "2", "--threads", "1", stack=stack)
        mainstay.process.await_output("^Serving until stopped")
        yield mainstay


@pytest.fixture
def client(local):
    with Client(local.address) as client:
        yield client


@pytest.mark.parametrize("name", ["python", "raw"])
def test_python_reads_every_kind(client, name):
    def read(output):
        return client.get_dataset(f"{name}/{output}")

    np.testing.assert_array_equal(read("doubled").compute(), np.arange(6) * 2)
    assert read("total").compute() == 15
    expected = pd.Series({0: 1.0, 1: 3.0, 2: 3.0, 3: 2.0})
    assert read("by_k").compute().sort_index().to_dict() == expected.to_dict()
    assert dict(read("counts").compute()) == {"a": 2, "b": 1}
    assert read("sum_of_all").compute() == 7 + 3 + 3
    assert dask.compute(read("repacked"))[0] == {"first": 21, "second": 20, "third": 5}
    assert len(read("same")) == 6


def test_a_function_takes_inputs_as_arguments(client):
    np.testing.assert_array_equal(client.get_dataset("entry/scaled").compute(), np.arange(6) * 3)
    assert client.get_dataset("entry/counted").compute() == 3 + 6 + 7 + 3 + 20


def test_inline_tasks_take_whole_outputs(client):
    assert client.get_dataset("inline/sums").compute() == [15, 3, 21 + 25]
    assert client.get_dataset("inline/both").compute() == 6 + 7
    assert client.get_dataset("inline/limit").compute() == 3


def test_a_chain_goes_through(client):
    assert client.get_dataset("chained").compute() == 16


def test_nothing_is_computed_again_for_those_that_read(local, client):
    assert client.get_dataset("python/total").compute() == 15
    assert runs(local.folder / "runs") == NOTED


def test_the_example_of_the_guide(tmp_path):
    guide = (REPOSITORY / "docs/write-a-collection.md").read_text()
    [example] = [block for block in re.findall(r"```yaml\n(.*?)```", guide, re.DOTALL) if "name: report}" in block]
    process = run_local(tmp_path / "run", example, "--workers", "1")
    assert process.wait() == 0, process.output
    assert re.search(r"^report/by_name: Series, 1 key,", process.output, re.MULTILINE), process.output


# ---- what cannot be read

ONES = "import dask.array as da\nx = da.ones(2, chunks=1)\ntotal = x.sum()"


def reads(**inputs):
    entries = [f"{variable}: {{persistedCollection: {path.split('/')[0]}, output: {path.split('/')[1]}}}"
               for variable, path in inputs.items()]
    return "{" + ", ".join(entries) + "}"


def end(tmp_path, *texts):
    """The lines that a run tells at its end, which is a failure."""
    process = run_local(tmp_path / "run", "".join(texts), "--workers", "1")
    assert process.wait() == 1, process.output
    return process.output


def test_every_collection_of_a_cycle_names_it(tmp_path):
    output = end(
        tmp_path,
        collection("b", "z = base", ["z"], inputs=reads(base="c/z")),
        collection("a", "z = base", ["z"], inputs=reads(base="b/z")),
        collection("c", "z = base", ["z"], inputs=reads(base="a/z")),
        collection("behind", "z = base", ["z"], inputs=reads(base="a/z")),
        collection("ones", ONES, ["x"]),
    )
    for name in "abc":
        assert f"\n{name} cannot be built: inputs form a cycle: a → b → c → a\n" in output, output
    assert "behind cannot be built without its input a/z: its collection failed: inputs form a cycle: a → b → c → a\n" in output
    assert re.search(r"^ones/x: Array, 2 keys", output, re.MULTILINE), output


def test_what_is_missing_is_said_with_what_there_is(tmp_path):
    output = end(
        tmp_path,
        collection("ones", ONES, ["x", "total"]),
        collection("broken", "x = (", ["x"]),
        collection("output", "z = base + 1", ["z"], inputs=reads(base="ones/totl")),
        collection("name", "z = base + 1", ["z"], inputs=reads(base="one/x")),
        collection("reader", "z = base + 1", ["z"], inputs=reads(base="broken/x")),
        collection("behind", "z = base + 1", ["z"], inputs=reads(base="reader/z")),
    )
    for line in (
        "output cannot be built without its input ones/totl: `ones` has no output `totl` (did you mean `total`?); it has x, total",
        "name cannot be built without its input one/x: there is no PersistedCollection `one` (did you mean `ones`?)",
        "reader cannot be built without its input broken/x: its collection failed: SyntaxError in line 1",
        "behind cannot be built without its input reader/z: its collection waits for the input broken/x: its collection failed: SyntaxError",
    ):
        assert f"\n{line}" in output, output


def test_a_task_that_failed_fails_those_that_read_it(tmp_path):
    output = end(
        tmp_path,
        collection("base", "import dask, conformance_tasks\nx = dask.delayed(conformance_tasks.fail)('bad row 7')", ["x"]),
        collection("reader", "z = x + 1", ["z"], inputs=reads(x="base/x")),
    )
    assert re.search(r"^reader: the task fail-\S+ failed after 1 attempt: ValueError: bad row 7$", output, re.MULTILINE), output
