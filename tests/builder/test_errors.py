"""What a person reads when a source gives no graph."""

import pytest


def error(builder, source, *collections, **request):
    document = builder.python(source, *(collections or ("x",)), **request)
    assert set(document) == {"version", "error"}, document
    return document["error"]


def test_a_syntax_error_shows_the_line(builder):
    found = error(builder, "import dask\nx = 1\ny = = 2\n")
    assert (found["kind"], found["line"]) == ("SyntaxError", 3)
    assert found["message"] == "invalid syntax (line 3)"
    assert (
        found["traceback"] == '  File "daily-sales.py", line 3\n    y = = 2\n        ^\nSyntaxError: invalid syntax\n'
    )


def test_what_a_source_raises_has_its_own_frames_only(builder):
    found = error(builder, "def load(path):\n    raise ValueError(f'no data in {path}')\n\nx = load('here')\n")
    assert (found["kind"], found["message"], found["line"]) == ("Raised", "ValueError: no data in here", 2)
    assert found["traceback"] == (
        "Traceback (most recent call last):\n"
        '  File "daily-sales.py", line 4, in <module>\n'
        "    x = load('here')\n"
        "        ^^^^^^^^^^^^\n"
        '  File "daily-sales.py", line 2, in load\n'
        "    raise ValueError(f'no data in {path}')\n"
        "ValueError: no data in here\n"
    )


def test_causes_are_shown(builder):
    found = error(builder, "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise RuntimeError('outer') from e\n")
    assert found["message"] == "RuntimeError: outer"
    assert "ZeroDivisionError" in found["traceback"] and "direct cause" in found["traceback"]
    assert "mainstay" not in found["traceback"].lower()


def test_an_error_inside_a_library_ends_at_the_sources_line(builder):
    found = error(builder, "import dask.array as da\n\nx = da.ones((2, 2)).reshape(3)\n")
    assert (found["kind"], found["line"]) == ("Raised", 3)
    assert found["traceback"].splitlines()[1] == '  File "daily-sales.py", line 3, in <module>'


def test_leaving_is_an_error(builder):
    assert error(builder, "raise SystemExit(3)")["message"] == "SystemExit: 3"


def test_a_name_that_is_not_defined_comes_with_those_that_are(builder):
    found = error(builder, "import dask\nsales = 1\ndaily = 2\n_hidden = 3\n", "sales", "dialy")
    assert found["kind"] == "NameNotDefined"
    assert found["message"] == "the source does not define `dialy` (did you mean `daily`?); it defines: daily, sales"
    source = "import dask\ndef helper(): pass\n"
    assert error(builder, source, "x")["message"] == "the source does not define `x`; it defines: nothing"


@pytest.mark.parametrize("optimize", [True, False])
def test_a_task_that_cannot_be_pickled_names_its_collection(builder, optimize):
    source = """
import dask, threading
fine = dask.delayed(sum)([1, 2])
lock = threading.Lock()
stuck = dask.delayed(lambda value: lock)(1)
"""
    found = error(builder, source, "fine", "stuck", optimize_graph=optimize)
    assert found["kind"] == "NotSerializable"
    assert found["message"] == "the task of `stuck` cannot be pickled: TypeError: cannot pickle '_thread.lock' object"
    assert found["traceback"] is None
    found = error(builder, source + "later = dask.delayed(sum)([stuck])", "later")
    assert found["message"].startswith("the task `lambda-") and "` of `later` cannot be pickled" in found["message"]


def test_a_plain_value_that_cannot_be_pickled_is_named(builder):
    found = error(builder, "import threading\nx = threading.Lock()")
    assert found["kind"] == "NotSerializable" and found["message"].startswith("the value of `x` cannot be pickled")


@pytest.mark.parametrize("line", ["import lacking_module", "from lacking_module.part import thing"])
def test_an_import_that_the_image_lacks(builder, line):
    found = error(builder, f"import dask\n{line}\n")
    assert (found["kind"], found["line"]) == ("ImportFailed", 2)
    assert found["message"] == "the worker image has no module `lacking_module`"
    assert "daily-sales.py" in found["traceback"]


def test_a_name_that_a_module_lacks(builder):
    found = error(builder, "from dask import nothing_like_this")
    assert found["kind"] == "ImportFailed"
    assert "cannot import name 'nothing_like_this' from 'dask'" in found["message"]


def test_an_option_that_nothing_takes(builder):
    source = "import dask.array as da\nx = da.ones(2)"
    found = error(builder, source, optimize_options={"fuse_harder": True})
    assert found["kind"] == "BadOption"
    assert found["message"] == "no optimisation takes the option `fuse_harder`: these collections take none"


@pytest.mark.parametrize(
    "line, options, optimize, message",
    [
        ("x = bag", {"fuse_key": ["a"]}, True, "`fuse_key` (did you mean `fuse_keys`?): these collections take fuse_keys"),
        ("x = frame", {"fuse": True, "fuse_keys": []}, True, "takes the option `fuse_keys`"),
        ("x = frame", {"fuse": "no"}, True, "the option `fuse` is 'no': it has to be true or false"),
        ("x = frame", {"fuse": True}, False, "takes the option `fuse`: optimizeGraph is false"),
        ("x = 5", {"fuse": True}, True, "takes the option `fuse`"),
    ],
)
def test_options_that_would_do_nothing(builder, line, options, optimize, message):
    source = f"""
import dask.bag as db, dask.dataframe as dd, pandas as pd
bag = db.from_sequence([1, 2], npartitions=2)
frame = dd.from_pandas(pd.DataFrame({{"a": [1, 2]}}), npartitions=2)
{line}
"""
    found = error(builder, source, optimize_options=options, optimize_graph=optimize)
    assert found["kind"] == "BadOption" and message in found["message"]


@pytest.mark.parametrize(
    "annotation, message",
    [
        ("retries=-1", "the annotation `retries` of `sum-x` is -1: it has to be a whole number from 0"),
        ("retries=1.5", "`retries` of `sum-x` is 1.5: it has to be a whole number from 0"),
        ("retries=lambda key: 'two'", "`retries` of `sum-x` is 'two': it has to be a whole number from 0"),
        ("priority=float('nan')", "`priority` of `sum-x` is nan: it has to be a finite number"),
        ("priority=lambda key: float('inf')", "`priority` of `sum-x` is inf: it has to be a finite number"),
        ("workers=lambda key: [None]", "`workers` of `sum-x` is [None]: it has to be a list of names or addresses of workers"),
        ("resources={'GPU': 'one'}", "`resources` of `sum-x` is {'GPU': 'one'}: it has to be a dict of amounts by name"),
        ("resources={'GPU': -1}", "`resources` of `sum-x` is {'GPU': -1}: it has to be a dict of amounts by name"),
        ("resources=lambda key: 'GPU=1'", "`resources` of `sum-x` is 'GPU=1': it has to be a dict of amounts by name"),
        ("allow_other_workers=lambda key: 'no'", "`allow_other_workers` of `sum-x` is 'no': it has to be True or False"),
        ("executor=5", "`executor` of `sum-x` is 5: it has to be the name of an executor"),
        ("priority=lambda key: key[99]", "`priority` cannot be had for `sum-x`: IndexError: string index out of range"),
        ("executor=object()", "the annotations of `sum-x` are not plain data: object is not plain data"),
    ],
)
def test_an_annotation_that_cannot_be_names_the_key(builder, annotation, message):
    source = f"import dask\nwith dask.annotate({annotation}):\n    x = dask.delayed(sum)([1], dask_key_name='sum-x')"
    found = error(builder, source)
    assert found["kind"] == "BadOption" and message in found["message"]


def test_an_annotation_that_dask_refuses_shows_the_line(builder):
    found = error(builder, "import dask\nwith dask.annotate(resources='GPU'):\n    x = dask.delayed(sum)([1])")
    assert (found["kind"], found["line"]) == ("Raised", 2) and "must be a dict" in found["message"]


def test_an_actor_that_is_no_task(builder):
    found = error(builder, "import dask\nx = dask.delayed(sum)([1])", actors={"tasks": {"model": True}})
    assert found["message"] == "`actors` names `model`, which is no collection and no task"
    found = error(builder, "import dask\nmodel = dask.delayed(sum)([1])", "model", actors={"tasks": {"modle": True}})
    assert found["kind"] == "UnknownReference" and found["message"].endswith("no task (did you mean `model`?)")


def test_graphs_beyond_the_limits(builder):
    source = "import dask.array as da\nx = da.ones(100, chunks=1)"
    found = error(builder, source, limits={"tasks": 10})
    assert found["kind"] == "TooLarge" and "100 tasks, more than 10" in found["message"]
    assert error(builder, source, limits={"bytes": 1000})["kind"] == "TooLarge"


def test_long_texts_are_cut(builder):
    found = error(builder, "raise ValueError('x' * 1_000_000)")
    assert len(found["message"]) <= 2_000 and len(found["traceback"]) <= 16_000


def test_a_cycle_in_a_graph(builder):
    source = """
from dask.delayed import Delayed
x = Delayed("a", {"a": (sum, ["b"]), "b": (sum, ["a"])})
"""
    assert error(builder, source, optimize_graph=False)["kind"] == "Cycle"


def test_an_unknown_operation_is_an_error_too(builder):
    assert builder.ask("dance", {})["error"]["kind"] == "Raised"


# ---- entrypoints


def entrypoint(builder, callable, *names, collections=(), **request):
    return builder.ask(
        "build",
        {
            "kind": "entrypoint",
            "name": "daily-sales",
            "callable": callable,
            "collections": [*names, *collections],
            **request,
        },
    )


def test_entrypoints_give_what_is_named(builder):
    import numpy as np

    read = builder.read(entrypoint(builder, "acme.pipelines:one", "x"))
    np.testing.assert_array_equal(read["x"], np.arange(4))
    document = entrypoint(builder, "acme.pipelines:several", "total", "words", args=[6], kwargs={"factor": 2})
    assert builder.read(document) == {"total": 30, "words": ["a", "b"]}
    document = entrypoint(builder, "acme.pipelines:several", args=[6])
    assert [output["name"] for output in document["outputs"]] == ["numbers", "total", "words"]
    read = builder.read(entrypoint(builder, "acme.pipelines:pair", "ones", "zeros"))
    np.testing.assert_array_equal(read["zeros"], np.zeros(2))


def test_entrypoints_take_parameters_and_inputs(builder):
    first = entrypoint(builder, "acme.pipelines:one", "x")
    futures = builder.persist(first)
    [output] = first["outputs"]
    document = entrypoint(
        builder,
        *("acme.pipelines:configured", "y"),
        inputs={"base": [output["header"], output["frames"]]},
        parameters={"offset": 10},
    )
    assert list(builder.read(document)["y"]) == [10, 11, 12, 13]
    del futures


@pytest.mark.parametrize(
    "callable, request_fields, kind, message",
    [
        ("lacking_module:f", {}, "ImportFailed", "the worker image has no module `lacking_module`"),
        ("acme.lacking:f", {}, "ImportFailed", "the worker image has no module `acme.lacking`"),
        ("acme.pipelines:fial", {}, "CallableNotFound", "the module `acme.pipelines` has no `fial`"),
        ("acme.pipelines:seveal", {}, "CallableNotFound", "has no `seveal` (did you mean `several`?)"),
        ("acme.pipelines:NOT_CALLABLE", {}, "CallableNotFound", "`acme.pipelines:NOT_CALLABLE` is int, not a function"),
        ("acme.pipelines:missing_import", {}, "ImportFailed", "the worker image has no module `lacking_module`"),
        ("acme.pipelines:failing", {}, "Raised", "ValueError: no pipeline today"),
        ("acme.pipelines:one", {"args": [1, 2, 3]}, "Raised", "TypeError: one() takes from 0 to 1 positional"),
        ("acme.pipelines:one", {"parameters": {"a": 1}}, "BadOption", "has no argument `params`"),
        (
            "acme.pipelines:pair",
            {"collections": ["a", "b", "c"]},
            "NameNotDefined",
            "returned tuple, and `collections` names 3",
        ),
        (
            "acme.pipelines:several",
            {"collections": ["total", "word"], "args": [2]},
            "NameNotDefined",
            "(did you mean `words`?)",
        ),
    ],
)
def test_entrypoints_that_fail(builder, callable, request_fields, kind, message):
    found = entrypoint(builder, callable, **{"collections": ["x"], **request_fields})["error"]
    assert found["kind"] == kind
    assert message in found["message"]
    assert "mainstay" not in (found["traceback"] or "").lower()
