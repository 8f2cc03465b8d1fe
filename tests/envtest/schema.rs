//! What the API server takes and refuses, and that `validate` is of the same mind.

use mainstay::api::PersistedCollection;
use mainstay::controller::validate::validate;
use serde_json::{Value, json};

use crate::cluster::{apply, with_namespace};

/// A spec that is good but for what a case changes.
fn spec(changes: &str) -> Value {
    let mut spec = json!({"source": {"python": "x = 1"}, "collections": ["x"]});
    for (field, value) in serde_json::from_str::<Value>(changes).unwrap().as_object().unwrap() {
        spec[field] = value.clone();
    }
    spec
}

const GOOD: &[&str] = &[
    "{}",
    r#"{"source": {"entrypoint": {"callable": "acme.pipelines:build", "args": [1, {"a": null}], "kwargs": {"b": [true]}}}}"#,
    r#"{"source": {"tasks": [{"key": "a b/c.d", "call": "m:f", "retries": 0, "resources": {"GPU": 0.5}, "actor": true}]}, "collections": []}"#,
    r#"{"source": {"tasks": [{"key": "a", "call": "m:f"}, {"key": "b", "call": "m.n:f.g", "args": [{"task": "a"}]}]}, "collections": ["b"]}"#,
    r#"{"source": {"tasks": [{"key": "a", "call": "m:f", "priority": -2.5, "allowOtherWorkers": false, "workers": {"matchLabels": {"disk": "nvme"}, "matchExpressions": [{"key": "c", "operator": "Exists"}], "names": ["w-0"]}}]}, "collections": []}"#,
    r#"{"overrides": [{"keys": "load-*", "retries": 5}, {"keys": "('sum-*', 0)", "priority": 1.5, "workers": {"names": ["w-0"]}, "allowOtherWorkers": true, "resources": {"GPU": 0.5}}]}"#,
    r#"{"retries": 1000, "priority": -2.5, "resources": {"nvidia.com/gpu": 0, "MEMORY": 1e12}}"#,
    r#"{"retries": 2.0, "priority": 1e9}"#,
    r#"{"fifoTimeout": "60"}"#,
    r#"{"fifoTimeout": "1.5 HOURS"}"#,
    r#"{"fifoTimeout": "365 days"}"#,
    r#"{"fifoTimeout": "7 us"}"#,
    r#"{"fifoTimeout": "minute"}"#,
    r#"{"fifoTimeout": ".5s"}"#,
    r#"{"fifoTimeout": " 1e3 ms "}"#,
    r#"{"fifoTimeout": "3.1536e7"}"#,
    r#"{"fifoTimeout": "1_000 S"}"#,
    r#"{"fifoTimeout": "1e-400s"}"#,
    r#"{"workers": {}}"#,
    r#"{"workers": {"matchLabels": {"disk": "", "topology.kubernetes.io/zone": "a_b.C-1"}}, "allowOtherWorkers": true}"#,
    r#"{"workers": {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b", ""]}, {"key": "c", "operator": "DoesNotExist"}]}}"#,
    r#"{"workers": {"names": ["w-0", "tcp://10.0.0.7:40001"]}, "allowOtherWorkers": true}"#,
    r#"{"parameters": {"deep": {"er": [1, 2.5, null, "x", {"y": {}}]}}, "optimizeOptions": {"fuse": true}, "optimizeGraph": false}"#,
    r#"{"inputs": {"base": {"persistedCollection": "base.table-1", "output": "a b"}}}"#,
    r#"{"actors": {"all": true, "tasks": {"x": false}}}"#,
];

/// Changes, and a part of the message that they get.
const BAD: &[(&str, &str)] = &[
    (r#"{"retires": 3}"#, r#"field not declared in schema"#),
    (
        r#"{"source": {}}"#,
        "spec.source: Invalid value: must have exactly one of python, pythonFrom, entrypoint and tasks; has none",
    ),
    (
        r#"{"source": {"python": "x", "tasks": [{"key": "a", "call": "m:f"}]}}"#,
        "must have exactly one of python, pythonFrom, entrypoint and tasks; has python tasks",
    ),
    (r#"{"source": {"python": ""}}"#, "spec.source.python"),
    (r#"{"source": {"pythonFrom": {}}}"#, "must have exactly one of configMapKeyRef and secretKeyRef"),
    (
        r#"{"source": {"pythonFrom": {"configMapKeyRef": {"name": "A", "key": "k"}}}}"#,
        "spec.source.pythonFrom.configMapKeyRef.name: Invalid value: \"A\": must be the name of a Kubernetes object",
    ),
    (r#"{"source": {"entrypoint": {"callable": "acme.build"}}}"#, r#"must be "module:name""#),
    (r#"{"collections": []}"#, "spec.collections: Invalid value: must name at least one variable of the source to persist"),
    (r#"{"collections": ["a-b"]}"#, r#"spec.collections: Invalid value: "a-b" is not the name of a Python variable"#),
    (r#"{"collections": [true]}"#, "expected string"),
    (r#"{"parameters": null}"#, "spec.parameters in body must be of type object"),
    (r#"{"allowOtherWorkers": true}"#, "spec.allowOtherWorkers: Invalid value: needs workers"),
    (r#"{"allowOtherWorkers": true, "workers": {"names": []}}"#, "needs workers"),
    (r#"{"retries": -1}"#, "spec.retries in body should be greater than or equal to 0"),
    (r#"{"retries": 1001}"#, "spec.retries in body should be less than or equal to 1000"),
    (r#"{"retries": 1.5}"#, "spec.retries"),
    (r#"{"priority": "10"}"#, ".spec.priority: expected numeric"),
    (r#"{"priority": 18446744073709551616}"#, "spec.priority in body should be less than or equal to 1e+09"),
    (r#"{"fifoTimeout": "60 parsecs"}"#, r#"must be a Dask duration such as "60s""#),
    (r#"{"fifoTimeout": "1h30m"}"#, "must be a Dask duration"),
    (r#"{"fifoTimeout": "1 s 2"}"#, "must be a Dask duration"),
    (r#"{"fifoTimeout": "5 µs"}"#, "must be a Dask duration"),
    (r#"{"fifoTimeout": "  "}"#, "must be a Dask duration"),
    (r#"{"fifoTimeout": "-5s"}"#, "must be a Dask duration"),
    (r#"{"fifoTimeout": ""}"#, "must be a Dask duration"),
    (r#"{"fifoTimeout": "53w"}"#, "must not be longer than a year (365 days)"),
    (r#"{"fifoTimeout": "_50w"}"#, "must not be longer than a year (365 days)"),
    (r#"{"fifoTimeout": "1e999s"}"#, "must not be longer than a year (365 days)"),
    (r#"{"fifoTimeout": "99999999999 ms"}"#, "must not be longer than a year (365 days)"),
    (r#"{"resources": {"GPU": -1}}"#, "spec.resources.GPU in body should be greater than or equal to 0"),
    (r#"{"resources": {"": 1}}"#, "must have names of resources as keys"),
    (r#"{"resources": {"GPU": "2"}}"#, ".spec.resources.GPU: expected numeric"),
    (r#"{"workers": {"matchLabels": {"a b": "c"}}}"#, "must be labels such as {disk: nvme}"),
    (r#"{"workers": {"matchLabels": {"a": "-"}}}"#, "must be labels such as {disk: nvme}"),
    (r#"{"workers": {"matchExpressions": [{"key": "a", "operator": "Is"}]}}"#, "Unsupported value"),
    (r#"{"workers": {"matchExpressions": [{"key": "a", "operator": "In"}]}}"#, "operators In and NotIn need values"),
    (
        r#"{"workers": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}}"#,
        "Exists and DoesNotExist take none",
    ),
    (r#"{"inputs": {"1a": {"persistedCollection": "a", "output": "b"}}}"#, "must have names of Python variables as keys"),
    (r#"{"inputs": {"a": {"persistedCollection": "it", "output": "b"}}}"#, "must not name this collection itself"),
    (r#"{"source": {"tasks": []}, "collections": []}"#, "spec.source.tasks in body should have at least 1 items"),
    (r#"{"source": {"tasks": [{"key": "a", "call": "f"}]}, "collections": []}"#, "spec.source.tasks[0].call"),
    (r#"{"source": {"tasks": [{"key": "", "call": "m:f"}]}, "collections": []}"#, "spec.source.tasks[0].key"),
    (
        r#"{"source": {"tasks": [{"key": "a", "call": "m:f", "priority": 2e9}]}, "collections": []}"#,
        "spec.source.tasks[0].priority in body should be less than or equal to 1",
    ),
    (
        r#"{"source": {"tasks": [{"key": "a", "call": "m:f", "workers": {"matchLabels": {"a": "-"}}}]}, "collections": []}"#,
        "spec.source.tasks[0].workers.matchLabels.a in body should match",
    ),
    (r#"{"overrides": [{"retries": 1}]}"#, "spec.overrides[0].keys: Required value"),
    (r#"{"overrides": [{"keys": "", "retries": 1}]}"#, "spec.overrides[0].keys in body should be at least 1 chars long"),
    (
        r#"{"overrides": [{"keys": "a", "retries": -1}]}"#,
        "spec.overrides[0].retries in body should be greater than or equal to 0",
    ),
    (
        r#"{"overrides": [{"keys": "a", "workers": {"matchExpressions": [{"key": "a b", "operator": "Exists"}]}}]}"#,
        "spec.overrides[0].workers.matchExpressions[0].key in body should match",
    ),
];

/// Lists and names of which an object may not have two: server-side apply says so in other words than a plain create.
const TWICE: &[&str] = &[
    r#"{"collections": ["x", "x"]}"#,
    r#"{"source": {"tasks": [{"key": "a", "call": "m:f"}, {"key": "a", "call": "m:f"}]}, "collections": []}"#,
    r#"{"workers": {"names": ["w", "w"]}}"#,
];

#[tokio::test]
async fn good_specs_are_taken_and_decode_and_validate() {
    with_namespace(async |client, namespace| {
        for changes in GOOD {
            let stored =
                apply(&client, &namespace, "it", &spec(changes)).await.unwrap_or_else(|message| panic!("{changes}: {message}"));
            let decoded: PersistedCollection =
                serde_json::from_value(stored).unwrap_or_else(|error| panic!("{changes}: {error}"));
            validate("it", &decoded.spec, None).unwrap_or_else(|error| panic!("{changes}: {error}"));
        }
    })
    .await;
}

#[tokio::test]
async fn bad_specs_are_refused_with_the_intended_message() {
    with_namespace(async |client, namespace| {
        for (changes, message) in BAD {
            let refused = apply(&client, &namespace, "it", &spec(changes)).await.expect_err(changes);
            assert!(refused.contains(message), "{changes}: {refused}");
        }
        for changes in TWICE {
            let refused = apply(&client, &namespace, "it", &spec(changes)).await.expect_err(changes);
            assert!(refused.contains("duplicate"), "{changes}: {refused}");
        }
    })
    .await;
}

#[test]
fn what_the_api_server_refuses_validate_refuses_too() {
    for changes in BAD.iter().map(|(changes, _)| changes).chain(TWICE) {
        // A misspelt field is for whoever reads the manifest; a wrong type does not decode.
        let Ok(decoded) = serde_json::from_value(spec(changes)) else { continue };
        if !changes.contains("retires") {
            assert!(validate("it", &decoded, None).is_err(), "{changes}");
        }
    }
}

#[tokio::test]
async fn defaults_are_filled_in() {
    with_namespace(async |client, namespace| {
        let stored = apply(&client, &namespace, "it", &spec("{}")).await.unwrap();
        assert_eq!(
            stored["spec"],
            json!({
                "source": {"python": "x = 1"}, "collections": ["x"],
                "optimizeGraph": true, "allowOtherWorkers": false, "retries": 0, "priority": 0, "fifoTimeout": "60s",
            })
        );
    })
    .await;
}

#[tokio::test]
async fn ten_thousand_tasks_are_taken_within_the_size_of_an_object_and_no_more() {
    with_namespace(async |client, namespace| {
        let tasks = |count: usize| -> Value { (0..count).map(|i| json!({"key": format!("t{i}"), "call": "m:f"})).collect() };
        let spec = |count| json!({"source": {"tasks": tasks(count)}, "collections": ["t0"]});
        apply(&client, &namespace, "many", &spec(5_000)).await.unwrap();
        let refused = apply(&client, &namespace, "more", &spec(10_001)).await.unwrap_err();
        assert!(refused.contains("must have at most 10000 items"), "{refused}");
    })
    .await;
}
