"""Which graph a collection has: the one that `Client.persist` would submit."""

import collections
import inspect

import dask
import pytest
from conftest import outputs
from dask._task_spec import convert_legacy_graph
from dask.base import collections_to_expr, unpack_collections
from dask.core import flatten

SOURCE = """
import dask, dask.array as da, dask.bag as db, dask.dataframe as dd, pandas as pd
pandas_frame = pd.DataFrame({"a": range(40), "b": range(40)})
frame = dd.from_pandas(pandas_frame, npartitions=4)
derived = frame[frame.a > 3].assign(c=frame.b * 2)
total = frame.a.sum()
indexed = derived.set_index("b", divisions=[0, 20, 39])
array = (da.arange(100, chunks=10) + 1) * 2
array_sum = array.sum()
numbers = db.from_sequence(range(20), npartitions=4).map(str).filter(len)
count = numbers.count()
one = dask.delayed(sum, pure=True)([1, 2])
two = dask.delayed(sum, pure=True)([one, 3])
over = dask.delayed(len, pure=True)(array)
values = frame.a.to_dask_array(lengths=True)
nested = {"array": array, "list": [array_sum, (one, 5)]}
"""


def submitted(names, optimize):
    """How many tasks of each kind `Client.persist` submits for these, and how many outputs."""
    namespace = {}
    exec(SOURCE, namespace)
    parts = [part for name in names for part in unpack_collections(namespace[name])[0]]
    expression = collections_to_expr(parts, optimize).optimize()
    wanted = list(flatten(expression.__dask_keys__()))
    nodes = convert_legacy_graph(expression.__dask_graph__())
    found, needed = set(), list(wanted)
    while needed:
        key = needed.pop()
        if key not in found:
            found.add(key)
            needed.extend(nodes[key].dependencies)
    return kinds(found), kinds(set(wanted))


def built(document):
    keys = document["keys"]
    return kinds(keys), kinds({keys[index] for output in outputs(document).values() for index in output["keys"]})


def kinds(keys):
    """Keys by prefix: some of Dask's hashes are random."""
    return collections.Counter(map(dask.utils.key_split, keys))


# Not a bag with what is made of it: which of the two Dask fuses with their inputs is a matter of chance.
LEGACY = [
    ["array"],
    ["array", "array_sum"],
    ["numbers"],
    ["count"],
    ["one", "two"],
    ["over"],
    ["array", "two", "array_sum"],
    ["numbers", "array", "two"],
    ["nested"],
    ["nested", "array"],
]


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("names", LEGACY, ids="-".join)
def test_arrays_bags_and_delayed_values(builder, names, optimize):
    assert built(builder.python(SOURCE, *names, optimize_graph=optimize)) == submitted(names, optimize)


FRAMES = [["derived"], ["derived", "total"], ["total"], ["indexed"], ["values", "derived"]]


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("names", FRAMES[:-1], ids="-".join)
def test_dataframes_that_are_not_fused(builder, names, optimize):
    """`Client.persist` optimises dataframes whatever it is told, and fuses nothing."""
    options = {"fuse": False} if optimize else {}
    document = builder.python(SOURCE, *names, optimize_graph=optimize, optimize_options=options)
    assert built(document) == submitted(names, optimize)


@pytest.mark.parametrize("name", ["derived", "total", "indexed"])
def test_dataframes_are_fused_as_their_own_persist_does(builder, name):
    namespace = {}
    exec(SOURCE, namespace)
    optimized = namespace[name].optimize(fuse=True)
    tasks, keys = len(optimized.__dask_graph__()), len(optimized.__dask_keys__())
    document = builder.python(SOURCE, name)
    assert (len(document["tasks"]), len(outputs(document)[name]["keys"])) == (tasks, keys)


@pytest.mark.parametrize("names", [["derived", "array"], ["derived", "two"], ["derived", "numbers", "nested"]], ids="-".join)
def test_mixed_kinds(builder, names):
    assert built(builder.python(SOURCE, *names)) == submitted(names, True)


def test_options_reach_each_kind(builder):
    names = ("derived", "numbers")
    fused, plain = (builder.python(SOURCE, *names, optimize_options={"fuse": fuse}) for fuse in (True, False))
    assert len(fused["tasks"]) < len(plain["tasks"])
    keys = [key for key in builder.python(SOURCE, "numbers", optimize_graph=False)["keys"] if "str-" in key[0]]
    kept = builder.python(SOURCE, *names, optimize_options={"fuse_keys": [list(keys[0])]})
    assert builder.read(kept)["numbers"] == builder.read(fused)["numbers"]


def test_dask_itself_is_as_these_tests_take_it():
    """`Client.persist` takes **kwargs and uses none, so its options go nowhere; ours do, or are refused."""
    from distributed import Client

    text = inspect.getsource(Client.persist)
    assert "collections_to_expr(collections, optimize_graph)" in text and text.count("**kwargs") == 1
    assert dask.__version__
