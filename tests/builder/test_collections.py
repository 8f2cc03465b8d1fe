"""Every kind of collection, compared with what Dask itself computes."""

import pickletools

import dask
import dask.array as da
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest
from conftest import outputs

FRAME = pd.DataFrame({"day": [1, 2, 3, 4] * 25, "amount": range(100), "note": ["x", "y"] * 50})


@pytest.fixture
def sales(tmp_path):
    dd.from_pandas(FRAME, npartitions=4).to_parquet(tmp_path / "sales")
    return str(tmp_path / "sales")


def test_arrays_share_the_tasks_they_have_in_common(builder):
    source = """
import dask.array as da
x = da.arange(100, chunks=10)
y = x * 2
total = y.sum()
"""
    document = builder.python(source, "y", "total")
    read = builder.read(document)
    np.testing.assert_array_equal(read["y"], np.arange(100) * 2)
    assert read["total"] == 9900
    assert [(o["type"], len(o["keys"]), o["npartitions"]) for o in document["outputs"]] == [
        ("Array", 10, 10),
        ("Array", 1, 1),
    ]
    alone = [len(builder.python(source, name)["tasks"]) for name in ("y", "total")]
    assert len(document["tasks"]) < sum(alone)


def test_a_dataframe_and_its_aggregate(builder, sales):
    document = builder.python(
        """
import dask.dataframe as dd
sales = dd.read_parquet(params["path"])
sales = sales[sales.amount > 10].assign(double=lambda frame: frame.amount * 2)
daily = sales.groupby("day").double.sum()
mean = sales.amount.mean()
""",
        *("sales", "daily", "mean"),
        parameters={"path": sales},
    )
    read = builder.read(document)
    expected = FRAME[FRAME.amount > 10].assign(double=lambda frame: frame.amount * 2)
    pd.testing.assert_frame_equal(
        read["sales"].reset_index(drop=True), expected.reset_index(drop=True), check_dtype=False
    )
    pd.testing.assert_series_equal(read["daily"].sort_index(), expected.groupby("day").double.sum(), check_dtype=False)
    assert read["mean"] == expected.amount.mean()
    assert [o["type"] for o in document["outputs"]] == ["DataFrame", "Series", "Scalar"]
    # One task reads and cleans a partition for both outputs.
    assert sum(task[2] for task in document["tasks"]) <= 4


def test_a_projection_that_changes_the_partitions(builder, tmp_path):
    wide = pd.DataFrame({f"c{i}": range(40) for i in range(20)})
    dd.from_pandas(wide, npartitions=8).to_parquet(tmp_path / "wide")
    document = builder.python(
        "import dask.dataframe as dd\nx = dd.read_parquet(params['path'])[['c1']]\nlonger = x + 1",
        *("x", "longer"),
        parameters={"path": str(tmp_path / "wide")},
    )
    read = builder.read(document)
    pd.testing.assert_frame_equal(read["x"].reset_index(drop=True), wide[["c1"]])
    pd.testing.assert_frame_equal(read["longer"].reset_index(drop=True), wide[["c1"]] + 1)
    assert [o["npartitions"] for o in document["outputs"]] == [len(o["keys"]) for o in document["outputs"]]


@pytest.mark.parametrize(
    "expression",
    [
        "frame.set_index('day')",
        "frame.merge(frame, on='day')",
        "frame.sort_values('amount', ascending=False)",
        "frame.groupby('day').amount.agg(['sum', 'mean', 'max'])",
        "frame.drop_duplicates('note')",
        "frame.amount.value_counts()",
        "frame.groupby('day').apply(lambda part: part.amount.max(), meta=('amount', 'i8'))",
        "frame.describe()",
        "frame.index",
        "frame.amount.sum() + 1",
        "frame.to_dask_array(lengths=True)",
        "frame.to_delayed()[0]",
        "frame.repartition(npartitions=7)",
        "frame.head(3)",
        "len(frame)",
        "frame.map_partitions(lambda part: part.assign(rank=part.amount.rank()))",
    ],
)
def test_dataframe_operations_give_what_dask_gives(builder, sales, expression):
    source = f"import dask.dataframe as dd\nframe = dd.read_parquet({sales!r})\nresult = {expression}"
    read = builder.read(builder.python(source, "result", "frame"))["result"]
    namespace = {}
    with dask.config.set({"scheduler": "sync", "dataframe.shuffle.method": "tasks"}):
        exec(source, namespace)
        expected = dask.compute(namespace["result"])[0]
        expected = expected if not isinstance(expected, list) else expected[0]
    if isinstance(expected, (pd.DataFrame, pd.Series)):
        by = (
            (lambda x: x.sort_values(list(x.columns)).reset_index(drop=True))
            if expected.ndim == 2
            else (lambda x: x.sort_index())
        )
        expected, read = by(expected), by(read)
        (pd.testing.assert_frame_equal if expected.ndim == 2 else pd.testing.assert_series_equal)(read, expected)
    else:
        assert np.all(np.asarray(read) == np.asarray(expected))


def test_bags_and_delayed_values(builder):
    document = builder.python(
        """
import dask, dask.bag as db
def square(x): return x * x
squares = db.from_sequence(range(10), npartitions=3).map(square)
total = squares.sum()
@dask.delayed
def join(*parts): return "-".join(map(str, parts))
joined = join(join(1, 2), total)
""",
        *("squares", "total", "joined"),
    )
    assert builder.read(document) == {"squares": [x * x for x in range(10)], "total": 285, "joined": "1-2-285"}
    assert [o["type"] for o in document["outputs"]] == ["Bag", "Item", "Delayed"]


def test_plain_values_are_one_key_each(builder):
    document = builder.python("answer = 42\ntable = {'a': [1, 2]}\nnothing = None", "answer", "table", "nothing")
    assert builder.read(document) == {"answer": 42, "table": {"a": [1, 2]}, "nothing": None}
    assert [(o["type"], len(o["keys"])) for o in document["outputs"]] == [("int", 1), ("dict", 1), ("NoneType", 1)]


def test_containers_of_collections(builder):
    document = builder.python(
        "import dask.array as da\nparts = {'a': da.ones(4, chunks=2), 'b': [da.zeros(2), 3]}", "parts"
    )
    read = builder.read(document)["parts"]
    np.testing.assert_array_equal(read["a"], np.ones(4))
    np.testing.assert_array_equal(read["b"][0], np.zeros(2))
    assert read["b"][1] == 3
    assert outputs(document)["parts"]["type"] == "dict"
    assert len(outputs(document)["parts"]["keys"]) == 3


def test_all_kinds_together(builder):
    document = builder.python(
        """
import dask, dask.array as da, dask.bag as db, dask.dataframe as dd, pandas as pd
frame = dd.from_pandas(pd.DataFrame({"a": range(10)}), npartitions=2)
first = dask.delayed(sum)([1, 2])
array = da.ones(4, chunks=2)
second = dask.delayed(sum)([first, 2])
values = frame.a.to_dask_array(lengths=True)
bag = db.from_sequence([1, 2], npartitions=2)
total = frame.a.sum()
""",
        *("array", "first", "frame", "bag", "second", "values", "total"),
    )
    read = builder.read(document)
    assert (read["first"], read["second"], read["bag"], read["total"]) == (3, 5, [1, 2], 45)
    np.testing.assert_array_equal(read["array"], np.ones(4))
    np.testing.assert_array_equal(read["values"], np.arange(10))
    assert list(read["frame"].a) == list(range(10))


def test_what_the_source_defines_works_on_other_workers(builder):
    document = builder.python(
        """
import dask, dataclasses, dask.array as da
OFFSET = 5
@dataclasses.dataclass
class Adder:
    by: int
    def __call__(self, block): return helper(block) + self.by
def helper(block): return block + OFFSET
x = da.zeros(4, chunks=1).map_blocks(Adder(2))
made = dask.delayed(Adder)(3)
""",
        *("x", "made"),
    )
    read = builder.read(document)
    np.testing.assert_array_equal(read["x"], np.full(4, 7))
    assert read["made"].by == 3


def test_building_again_elsewhere_gives_the_same_keys(builder):
    # Not for `read_parquet`, whose keys Dask makes anew in each process.
    source = """
import dask, dask.array as da, dask.dataframe as dd, pandas as pd
SCALE = 3
def scaled(block): return block * SCALE
x = da.ones(4, chunks=2).map_blocks(scaled)
frame = dd.from_pandas(pd.DataFrame({"day": [1, 2] * 5, "amount": range(10)}), npartitions=2)
frame = frame.assign(scaled=frame.amount.map_partitions(scaled))
daily = frame.groupby("day").scaled.sum()
value = dask.delayed(scaled, pure=True)(2)
plain = [1, 2]
"""
    names = ("x", "frame", "daily", "value", "plain")
    documents = [builder.python(source, *names, worker=worker) for worker in (0, 1, 0)]
    assert [set(document["keys"]) for document in documents] == [set(documents[0]["keys"])] * 3
    assert not [key for key in documents[0]["keys"] if " object at 0x" in str(key)]


def test_without_optimisation_every_step_is_a_task(builder):
    source = "import dask.array as da\nx = ((da.ones(4, chunks=2) + 1) * 2).sum()"
    fused, plain = (builder.python(source, "x", optimize_graph=optimize) for optimize in (True, False))
    assert len(plain["tasks"]) > len(fused["tasks"])
    assert builder.read(plain) == builder.read(fused) == {"x": 16}


def test_options_reach_the_optimisation(builder, sales):
    source = f"import dask.dataframe as dd\nx = dd.read_parquet({sales!r})\nx = x[x.amount > 2].assign(b=1)"
    fused, plain = (builder.python(source, "x", optimize_options={"fuse": fuse}) for fuse in (True, False))
    assert len(plain["tasks"]) > len(fused["tasks"])


def test_annotations_of_single_tasks_are_kept(builder):
    document = builder.python(
        """
import dask, dask.array as da, dask.bag as db
with dask.annotate(resources={"GPU": 1}, retries=3):
    x = da.ones(4, chunks=2).map_blocks(lambda block: block + 1)
with dask.annotate(workers="alice", allow_other_workers=True, priority=7):
    y = dask.delayed(sum)([1, 2])
with dask.annotate(retries=1):
    z = db.from_sequence([1, 2], npartitions=2)
z = z.map(str)
plain = da.zeros(2)
""",
        *("x", "y", "z", "plain"),
    )
    keys, table = document["keys"], document["annotation_table"]
    found = {}
    for key, task in zip(keys, document["tasks"]):
        found.setdefault(dask.utils.key_split(key), set()).add(task[4])
    by_prefix = {prefix: [table[i] for i in indices if i is not None] for prefix, indices in found.items()}
    assert by_prefix["lambda"] == [{"resources": {"GPU": 1}, "retries": 3}]
    assert by_prefix["sum"] == [{"workers": ("alice",), "allow_other_workers": True, "priority": 7}]
    assert by_prefix["from_sequence"] == [{"retries": 1}]
    assert by_prefix["str"] == []
    assert len(table) == 3


def test_annotations_may_be_functions_of_the_key_and_of_any_kind_of_number(builder):
    document = builder.python(
        """
import dask, dask.array as da, dask.bag as db, fractions, numpy as np
with dask.annotate(priority=lambda key: key[1] / 2, workers=lambda key: {f"w-{key[1]}"}):
    x = da.ones(2, chunks=1).map_blocks(lambda block: block + 1)
with dask.annotate(priority=np.float32(0.5), retries=np.int64(2), resources={"GPU": np.float64(0.5)}):
    y = dask.delayed(sum)([1, 2])
with dask.annotate(retries=lambda key: 3, priority=fractions.Fraction(1, 4)):
    z = db.from_sequence([1, 2], npartitions=2).map(str)
""",
        *("x", "y", "z"),
    )
    assert sorted(document["annotation_table"], key=str) == [
        {"priority": 0.0, "workers": ("w-0",)},
        {"priority": 0.5, "retries": 2, "resources": {"GPU": 0.5}},
        {"priority": 0.5, "workers": ("w-1",)},
        {"retries": 3, "priority": 0.25},
    ]


def test_arrays_are_optimised_with_their_annotations(builder):
    """As far as that loses none: Dask's own optimisation drops them, or mixes those of neighbours."""
    source = """
import dask, dask.array as da
x = da.ones(4, chunks=2) + 1
with dask.annotate(resources={"GPU": 1}):
    y = (x * 2 + 1) * 3
with dask.annotate(workers=["alice"]):
    z = y - 1
total = z.sum()
"""
    document = builder.python(source, "total")
    table = document["annotation_table"]
    found = {}
    for key, task in zip(document["keys"], document["tasks"]):
        found.setdefault(dask.utils.key_split(key), []).append(table[task[4]] if task[4] is not None else None)
    assert builder.read(document) == {"total": 56}
    assert found["mul"] == [{"resources": {"GPU": 1}}] * 2
    assert found["sub"] == [{"workers": ("alice",)}] * 2
    assert found["sum-aggregate"] == [None]
    assert len(document["tasks"]) < len(builder.python(source, "total", optimize_graph=False)["tasks"])


def test_only_what_the_outputs_need_is_kept(builder):
    document = builder.python(
        "import dask.array as da\nx = da.ones(100, chunks=1)\ny = x[:3]\nunused = x.sum()", "y", optimize_graph=False
    )
    assert len(document["tasks"]) <= 6


def test_tasks_come_in_the_order_to_run_them(builder):
    document = builder.python("import dask.array as da\ny = da.ones(8, chunks=1).sum(split_every=2)", "y")
    orders = [task[1] for task in document["tasks"]]
    assert orders == sorted(orders) == list(range(len(orders)))


def test_a_source_may_compute_while_it_builds(builder, sales):
    document = builder.python(
        """
import dask.dataframe as dd
frame = dd.read_parquet(params["path"])
rows = len(frame)
top = frame.amount.max().compute()
indexed = frame.set_index("amount")
first = frame.head(2)
""",
        *("rows", "top", "indexed", "first"),
        parameters={"path": sales},
    )
    read = builder.read(document)
    assert (read["rows"], read["top"], len(read["first"])) == (100, 99, 2)
    assert list(read["indexed"].index) == list(range(100))


def test_a_source_computes_through_the_workers_client(builder, client):
    document = builder.python(
        """
import dask, os
from distributed import get_client, get_worker
name = get_client().id
other = [address for address in get_client().nthreads() if address != get_worker().address]
elsewhere = get_client().submit(lambda: os.getpid(), workers=other, pure=False).result() != os.getpid()
""",
        *("name", "elsewhere"),
    )
    read = builder.read(document)
    assert read["name"].startswith("Client-worker-") and read["elsewhere"]


def test_what_a_source_persists_is_kept_for_its_graph(builder):
    document = builder.python(
        """
import dask, gc
import dask.array as da
from distributed import get_client
x = da.arange(10, chunks=5).persist()
future = get_client().submit(lambda: 5, pure=False)
total = (x + 1).sum()
more = dask.delayed(lambda value: value + 1)(future)
del x, future
gc.collect()
""",
        *("total", "more"),
    )
    assert len(document["keys"]) == len(document["tasks"]) + 3
    assert builder.read(document) == {"total": 55, "more": 6}


def test_containers_of_the_same_collections_are_told_apart(builder):
    source = "import dask.array as da\nx, y = da.ones(2, chunks=1), da.zeros(2, chunks=1)\nkept = {}\nplain = x"

    def kept(value, worker=0):
        output = outputs(builder.python(source.format(value), "kept", "plain", worker=worker))
        assert output["plain"]["structure"] is None
        return output["kept"]["structure"], output["kept"]["keys"]

    assert kept("[x, {'y': y}]") == kept("[x, {'y': y}]", worker=1)
    assert len({kept(value) for value in ("[x, y]", "(x, y)", "[x, [y]]", "{'a': x, 'b': y}", "{'a': x, 'c': y}", "[x, y, 1]")}) == 6


def test_what_is_made_of_inputs_keeps_its_keys_when_they_are_built_again(builder):
    base = """
import dask.array as da, dask.bag as db, dask.dataframe as dd, pandas as pd
frame = dd.from_pandas(pd.DataFrame({"k": [1, 2] * 5, "v": range(10)}), npartitions=3)
both = {"frame": frame[frame.v > 2], "array": da.ones(4, chunks=2), "bag": db.range(4, npartitions=2)}
"""
    source = "total = frame.groupby('k').v.sum()\nrest = {name: value.sum() for name, value in both.items()}"

    def keys(note, worker):
        first = builder.python(base + note, "frame", "both", worker=worker)
        inputs = {name: [output["header"], output["frames"]] for name, output in outputs(first).items()}
        document = builder.python(source, "total", "rest", inputs=inputs, worker=worker)
        return [document["keys"][index] for output in document["outputs"] for index in output["keys"]]

    assert keys("", 0) == keys("# The same.", 1)


def test_inputs_are_another_collections_futures(builder, sales):
    first = builder.python(
        "import dask.dataframe as dd\nimport dask.array as da\ntable = dd.read_parquet(params['path'])\n"
        "x = da.arange(6, chunks=2)\nanswer = 42",
        *("table", "x", "answer"),
        parameters={"path": sales},
    )
    futures = builder.persist(first)
    inputs = {name: [output["header"], output["frames"]] for name, output in outputs(first).items()}
    source = "total = table.amount.sum()\ny = x + 1\nmore = answer + 1\nsame = table"
    documents = [
        builder.python(source, "total", "y", "more", "same", inputs=inputs, worker=worker) for worker in (0, 1)
    ]
    read = builder.read(documents[0])
    assert (read["total"], read["more"], len(read["same"])) == (4950, 43, 100)
    np.testing.assert_array_equal(read["y"], np.arange(1, 7))
    external = documents[0]["keys"][len(documents[0]["tasks"]) :]
    assert set(external) == set(futures)
    assert (
        documents[0]["keys"][: len(documents[0]["tasks"]) - 1] == documents[1]["keys"][: len(documents[1]["tasks"]) - 1]
    )


def test_actors_by_collection_key_and_prefix(builder):
    source = """
import dask
class Counter:
    def __init__(self, start): self.count = start
    def increment(self): self.count += 1; return self.count
counter = dask.delayed(Counter)(3)
other = dask.delayed(Counter)(5)
"""

    def actors(document):
        return [output["name"] for output in document["outputs"] if document["tasks"][output["keys"][0]][3]]

    assert actors(builder.python(source, "counter", "other", actors={"all": True})) == ["counter", "other"]
    assert actors(builder.python(source, "counter", "other", actors={"tasks": {"counter": True}})) == ["counter"]
    assert actors(builder.python(source, "counter", "other", actors={"tasks": {"Counter": True}})) == [
        "counter",
        "other",
    ]
    document = builder.python(source, "counter", "other", actors={"all": True, "tasks": {"other": False}})
    assert actors(document) == ["counter"]
    futures = builder.persist(document)
    [key] = [key for key, task in zip(document["keys"], document["tasks"]) if task[3]]
    counter = futures[key].result()
    assert counter.increment().result() == 4
    assert builder.dataset(outputs(document)["counter"]).compute().increment().result() == 5


def test_coroutine_functions_are_awaited(builder):
    document = builder.python(
        """
import asyncio, dask
async def slow(x):
    await asyncio.sleep(0.01)
    return x + 1
value = dask.delayed(slow)(dask.delayed(slow)(1))
""",
        "value",
    )
    assert builder.read(document) == {"value": 3}


def test_a_worker_decodes_a_task_without_its_modules(builder):
    document = builder.python("import dask, acme.io\nx = dask.delayed(acme.io.load)('ab')", "x")
    [task] = document["tasks"]
    modules = {name.split(" ")[0] for name in globals_of(task[5])}
    assert modules <= {"builtins", "dask._task_spec", "dask.utils", "_operator", "_pickle"}, modules


def globals_of(pickled):
    """The `module name` of everything that a pickle imports."""
    memo, stack = [], []
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name in ("SHORT_BINUNICODE", "BINUNICODE"):
            stack.append(argument)
        elif opcode.name == "MEMOIZE":
            memo.append(stack[-1] if stack else None)
        elif opcode.name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif opcode.name == "STACK_GLOBAL":
            yield " ".join(map(str, stack[-2:]))


def test_cached_properties_of_two_graphs_do_not_wait_for_each_other(builder):
    document = builder.python(
        """
import functools, threading

both_are_in = threading.Barrier(2, timeout=20)

class One:
    def __init__(self, other=None):
        self.other = other
    @functools.cached_property
    def value(self):
        return self.ask() if self.other else 1
    def ask(self):
        both_are_in.wait()
        return self.other.value

class Another(One):
    @functools.cached_property
    def value(self):
        return self.ask() if self.other else 1

values = []
threads = [
    threading.Thread(target=lambda: values.append(One(Another()).value), daemon=True),
    threading.Thread(target=lambda: values.append(Another(One()).value), daemon=True),
]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(20)
computed = sum(values)
""",
        "computed",
    )
    assert builder.read(document) == {"computed": 2}
