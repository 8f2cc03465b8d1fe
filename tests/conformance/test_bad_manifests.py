"""Every bad input gives one clear message and the right exit code; whole outputs are compared where they are stable."""

import os
import pathlib
import re
import subprocess

import pytest
from conformance_tasks import runs
from harness import BINARY, DEADLINE_SECONDS, environment, run_local
from test_manifests import collection

EXPECTED = pathlib.Path(__file__).parents[1] / "cli/expected"
ONES = "import dask.array as da\nx = da.ones(2, chunks=1)"
TASKS = "  source:\n    tasks:\n"


def compare(name, found):
    """Compares with a file; UPDATE_EXPECT=1 writes it."""
    path = EXPECTED / f"{name}.txt"
    if os.environ.get("UPDATE_EXPECT"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(found)
    assert found == (path.read_text() if path.exists() else "")


def run(folder, *arguments):
    result = subprocess.run([BINARY, *arguments], cwd=folder, env=environment(COLUMNS="100"), stdin=subprocess.DEVNULL,
                            capture_output=True, text=True, timeout=DEADLINE_SECONDS)
    return f"{result.stdout}{result.stderr}exit code {result.returncode}\n"


def document(name="bad", **spec):
    """A manifest in JSON's subset of YAML."""
    import json

    spec = {"source": {"python": ONES}, "collections": ["x"], **spec}
    return json.dumps({"apiVersion": "mainstay.dev/v1alpha1", "kind": "PersistedCollection", "metadata": {"name": name},
                       "spec": {key: value for key, value in spec.items() if value is not None}})


def inline(*tasks):
    return {"source": {"tasks": [{"call": "operator:add", **task} for task in tasks]}, "collections": None}


# What is refused before anything is started.
REFUSED = {
    "unknown-field": document(retrys=3),
    "unknown-field-outside-spec": '{"apiVersion": "mainstay.dev/v1alpha1", "kind": "PersistedCollection", '
                                  '"metadata": {"name": "bad"}, "sepc": {}, "spec": {"source": {"python": "x = 1"}, "collections": ["x"]}}',
    "unknown-field-of-a-task": document(**inline({"key": "a", "retry": 1})),
    "no-spec": '{"apiVersion": "mainstay.dev/v1alpha1", "kind": "PersistedCollection", "metadata": {"name": "bad"}}',
    "no-source": document(source={}),
    "source-missing": document(source=None),
    "two-sources": document(source={"python": "x = 1", "entrypoint": {"callable": "a:b"}}),
    "empty-source": document(source={"python": "  \n"}),
    "no-collections": document(collections=None),
    "collection-twice": document(collections=["x", "x"]),
    "collection-is-no-variable": document(collections=["daily-sales"]),
    "boolean-name": "apiVersion: mainstay.dev/v1alpha1\nkind: PersistedCollection\nmetadata: {name: bad}\n"
                    "spec:\n  source: {python: y = 1}\n  collections: [y, true]\n",
    "configmap-missing": document(source={"pythonFrom": {"configMapKeyRef": {"name": "pipelines", "key": "sales.py"}}}),
    "bad-callable": document(source={"entrypoint": {"callable": "acme.build"}}),
    "cycle": document(**inline({"key": "a", "args": [{"task": "b"}, 1]}, {"key": "b", "args": [{"task": "c"}, 1]},
                               {"key": "c", "args": [[{"task": "a"}], 1]})),
    "unknown-reference": document(**inline({"key": "a", "args": [{"task": "lost"}, 1]})),
    "duplicate-key": document(**inline({"key": "a", "args": [1, 2]}, {"key": "a", "args": [1, 2]})),
    "negative-retries": document(retries=-1),
    "fractional-retries": document(retries=1.5),
    "bad-duration": document(fifoTimeout="soon"),
    "nan-priority": document().replace('"spec": {', '"spec": {"priority": .nan, '),
    "infinite-priority": document().replace('"spec": {', '"spec": {"priority": .inf, '),
    "priority-is-text": document(priority="high"),
    "negative-resource": document(resources={"GPU": -1}),
    "bad-label": document(workers={"matchLabels": {"disk type": "nvme"}}),
    "nothing-to-prefer": document(allowOtherWorkers=True),
    "input-of-itself": document(inputs={"base": {"persistedCollection": "bad", "output": "x"}}),
    "another-version": document().replace("v1alpha1", "v2"),
    "no-name": document(name=""),
    "no-yaml": "spec: [unclosed\n",
    "no-object": "- just\n- a list\n",
    "no-collection": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: pipelines}\n",
    "same-name-twice": document() + "\n---\n" + document(),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_before_anything_starts(tmp_path, name):
    (tmp_path / "bad.yaml").write_text(REFUSED[name])
    found = run(tmp_path, "local", "--once", "--port", "0", "-f", "bad.yaml")
    assert "Serving" not in found and found.endswith("exit code 1\n"), found
    compare(f"local-{name}", found)


def test_a_file_that_is_not_there(tmp_path):
    compare("local-no-file", run(tmp_path, "local", "--once", "-f", "nothing.yaml"))


def test_help(tmp_path):
    compare("help", run(tmp_path, "--help"))
    compare("local-help", run(tmp_path, "local", "--help"))


@pytest.mark.parametrize("arguments", [["--once"], ["--threads", "0"], ["--resources", "GPU"], ["--port", "99999"], ["--wrokers", "1"]])
def test_bad_arguments(tmp_path, arguments):
    found = run(tmp_path, "local", *arguments)
    assert found.endswith("exit code 2\n"), found
    compare(f"local-argument{arguments[0]}", found)


def test_a_python_without_dask(tmp_path):
    (tmp_path / "good.yaml").write_text(document())
    found = run(tmp_path, "local", "-f", "good.yaml", "--port", "0", "--once", "--python", "/bin/false")
    compare("local-no-dask", re.sub(r"tcp://[\d.:]+", "tcp://ADDRESS", found))


def test_a_port_that_is_taken(tmp_path):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = run(tmp_path, "local", "--workers", "0", "--port", str(port))
    compare("local-port-taken", found.replace(str(port), "PORT"))


# What is wrong with each is only seen on a worker. All in one manifest: what is good beside them is persisted.
FAILING = {
    "syntax": ("import dask\nx = 1\ny = = 2\n", {}),
    "raising": ("def load(path):\n    raise ValueError(f'no data in {path}')\n\nx = load('here')\n", {}),
    "misnamed": ("sales = 1\ndaily = 2\n", {"collections": ["dialy"]}),
    "lock": ("import threading\nx = threading.Lock()\n", {}),
    "unimportable": ("import lacking_module\nx = 1\n", {}),
    "no-module": ('  source: {entrypoint: {callable: "lacking_package.build:main"}}\n', {}),
    "no-function": ('  source: {entrypoint: {callable: "conformance_sources:biuld"}}\n', {}),
    "bad-option": (ONES, {"optimizeOptions": "{fuse_harder: true}"}),
    "no-actor": (ONES, {"actors": "{tasks: {model: true}}"}),
}


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("failed")
    notes = folder / "ran"
    chain = (f'{TASKS}    - {{key: bad, call: "conformance_tasks:fail", args: ["bad row 7"], retries: 2}}\n'
             f'    - {{key: needs, call: "conformance_tasks:note", args: ["{notes}", {{task: bad}}]}}\n'
             f'    - {{key: needs-more, call: "conformance_tasks:inc", args: [{{task: needs}}]}}\n'
             f'    - {{key: fine, call: "conformance_tasks:inc", args: [1]}}\n')
    text = collection("good", ONES, ["x"]) + collection("failing-tasks", chain, ["needs-more", "fine"])
    text += collection("lost-module", f'{TASKS}    - {{key: lost, call: "lacking_module:run"}}\n', ["lost"])
    for name, (source, fields) in FAILING.items():
        text += collection(name, source, fields.get("collections", ["x"]),
                           **{key: value for key, value in fields.items() if key != "collections"})
    process = run_local(folder, text, "--workers", "1", "--threads", "2")
    code = process.wait()
    return code, process.output, notes


def test_failures_that_only_a_worker_sees(failed):
    code, output, notes = failed
    assert code == 1, output
    settled = output[re.search(r"^good/x: ", output, re.MULTILINE).start():]
    compare("local-failures", shortened(settled))


def test_what_needs_a_failed_task_is_not_run(failed):
    assert runs(failed[2]) == 0


def shortened(text):
    """Without what differs from run to run, and without the frames of Python itself."""
    text = re.sub(r"tcp://127\.0\.0\.1:\d+", "tcp://ADDRESS", text)
    text = re.sub(r"-[0-9a-f]{32}", "-TOKEN", text)
    kept, is_library = [], False
    for line in text.splitlines():
        if frame := re.match(r'  File "(.*?)"', line):
            is_library = frame[1].startswith(("<", "/")) and "conformance" not in frame[1]
        elif not line.startswith("    "):
            is_library = False
        # The marks below a line are of some versions of Python only.
        if not is_library and not re.fullmatch(r"\s*\^+", line):
            kept.append(re.sub(r'File "/[^"]*/([^/"]+)", line \d+', r'File "…/\1", line N', line))
    return "\n".join(kept) + "\n"


# ---- what waits must say why

WAITING = {
    "selector": ({"workers": "{matchLabels: {disk: tape}}"}, r"disk=tape.*1 worker runs"),
    "names": ({"workers": "{names: [nobody]}"}, r"nobody"),
    "resource": ({"resources": "{GPU: 4}"}, r"GPU: 4.*nearest is worker-0 with GPU: 2"),
    "unknown-resource": ({"resources": "{FPGA: 1}"}, r"no worker has FPGA: 1; no worker declares any"),
    "input": ({"inputs": "{base: {persistedCollection: elsewhere, output: x}}"}, r"input elsewhere/x"),
}


def test_what_waits_says_for_what(tmp_path):
    # Equal keys would share the requirements of the first that asked for them.
    sources = {name: ONES.replace("2", str(number + 2)) for number, name in enumerate(WAITING)}
    text = "".join(collection(name, sources[name], ["x"], **fields) for name, (fields, _) in WAITING.items())
    process = run_local(tmp_path / "run", text, "--workers", "1", "--resources", "GPU=2", "--labels", "disk=nvme")
    try:
        for name, (_, pattern) in WAITING.items():
            process.await_output(rf"^{name}: .*{pattern}")
    finally:
        process.end()


def test_no_worker_to_build_on(tmp_path):
    process = run_local(tmp_path / "run", collection("lonely", ONES, ["x"]), "--workers", "0")
    try:
        process.await_output(r"^lonely: .*waits for a worker")
    finally:
        process.end()
