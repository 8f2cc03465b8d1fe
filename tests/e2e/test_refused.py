"""What the API server does not take, in the words that a user reads."""

import pytest

from kubectl import Refused

# What is wrong, the spec, and what the user reads.
REFUSED = [
    ("a misspelt field", "{source: {python: x = 1}, colections: [x], collections: [x]}", 'unknown field "spec.colections"'),
    ("a misspelt field within", "{source: {pyhton: x = 1}, collections: [x]}", 'unknown field "spec.source.pyhton"'),
    ("no source", "{source: {}, collections: [x]}",
     "must have exactly one of python, pythonFrom, entrypoint and tasks; has none"),
    ("no source at all", "{collections: [x]}", "spec.source: Required value"),
    ("two sources", "{source: {python: x = 1, entrypoint: {callable: 'acme:build'}}, collections: [x]}",
     "must have exactly one of python, pythonFrom, entrypoint and tasks; has python entrypoint"),
    ("two references", "{source: {pythonFrom: {configMapKeyRef: {name: a, key: b}, secretKeyRef: {name: a, key: b}}},"
     " collections: [x]}", "must have exactly one of configMapKeyRef and secretKeyRef"),
    ("nothing to persist", "{source: {python: x = 1}}", "must name at least one variable of the source to persist"),
    ("one output twice", "{source: {python: x = 1}, collections: [x, x]}", 'spec.collections[1]: Duplicate value: "x"'),
    ("a name that is none", "{source: {python: x = 1}, collections: [daily-sales]}",
     '"daily-sales" is not the name of a Python variable'),
    ("YAML's idea of n", "{source: {python: x = 1}, collections: [n]}", "must be of type string"),
    ("a unit that is none", "{source: {python: x = 1}, collections: [x], fifoTimeout: 5 parsecs}",
     "must be a Dask duration such as"),
    ("a negative duration", "{source: {python: x = 1}, collections: [x], fifoTimeout: -1s}",
     "must be a Dask duration such as"),
    ("a long duration", "{source: {python: x = 1}, collections: [x], fifoTimeout: 53w}",
     "must not be longer than a year"),
    ("negative retries", "{source: {python: x = 1}, collections: [x], retries: -1}",
     "spec.retries in body should be greater than or equal to 0"),
    ("retries in words", "{source: {python: x = 1}, collections: [x], retries: two}", "must be of type integer"),
    ("a priority that is no number", "{source: {python: x = 1}, collections: [x], priority: .nan}", "NaN"),
    ("an endless priority", "{source: {python: x = 1}, collections: [x], priority: 1e300}",
     "spec.priority in body should be less than or equal to"),
    ("nothing to prefer", "{source: {python: x = 1}, collections: [x], allowOtherWorkers: true}",
     "needs workers: without matchLabels, matchExpressions or names there is nothing to prefer"),
    ("an operator that is none", "{source: {python: x = 1}, collections: [x],"
     " workers: {matchExpressions: [{key: disk, operator: Is, values: [a]}]}}", 'supported values: "In", "NotIn", "Exists"'),
    ("an operator without values", "{source: {python: x = 1}, collections: [x],"
     " workers: {matchExpressions: [{key: disk, operator: In}]}}", "operators In and NotIn need values"),
    ("a negative resource", "{source: {python: x = 1}, collections: [x], resources: {GPU: -1}}",
     "should be greater than or equal to 0"),
    ("a callable that is none", "{source: {entrypoint: {callable: acme.build}}, collections: [x]}",
     'must be "module:name", for example "acme.pipelines:build"'),
    ("a task twice", "{source: {tasks: [{key: a, call: 'm:f'}, {key: a, call: 'm:g'}]}}",
     'spec.source.tasks[1]: Duplicate value: {"key":"a"}'),
    ("no tasks", "{source: {tasks: []}}", "spec.source.tasks in body should have at least 1 items"),
    ("itself as input", "{source: {python: x = 1}, collections: [x],"
     " inputs: {y: {persistedCollection: refused, output: x}}}", "must not name this collection itself"),
    ("an input that is no variable", "{source: {python: x = 1}, collections: [x],"
     " inputs: {a-b: {persistedCollection: other, output: x}}}", "must have names of Python variables as keys"),
]


def test_what_cannot_be_is_refused_in_plain_words(with_temp_namespace):
    story = with_temp_namespace
    wrong = []
    for what, spec, expected in REFUSED:
        manifest = f"apiVersion: mainstay.dev/v1alpha1\nkind: PersistedCollection\nmetadata: {{name: refused}}\nspec: {spec}\n"
        read = story.kubectl.refusal(manifest)
        if expected not in read:
            wrong.append(f"{what}: expected {expected!r}, read:\n{read}")
    assert not wrong, "\n".join(wrong)

    with pytest.raises(Refused, match="metadata.name"):
        story.apply({"apiVersion": "mainstay.dev/v1alpha1", "kind": "PersistedCollection", "metadata": {"name": "Bad Name"},
                     "spec": {"source": {"python": "x = 1"}, "collections": ["x"]}})
    for field in ("", ".spec", ".spec.source", ".spec.fifoTimeout", ".status.conditions"):
        explained = story.kubectl("explain", f"pcol{field}")
        assert "<empty>" not in explained, explained
    assert story.kubectl.items("pcol") == []
