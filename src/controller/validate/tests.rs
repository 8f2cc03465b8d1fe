//! What is refused, and with which words.

use serde_json::json;

use super::*;

fn spec(value: Value) -> PersistedCollectionSpec {
    let mut whole = json!({"source": {"python": "x = 1"}, "collections": ["x"]});
    for (name, inner) in value.as_object().unwrap() {
        whole[name] = inner.clone();
    }
    serde_json::from_value(whole).unwrap()
}

fn check(value: Value) -> Result<ValidatedCollection, Error> {
    validate("daily", &spec(value), None)
}

fn tasks(value: Value) -> Result<ValidatedCollection, Error> {
    check(json!({"source": {"tasks": value}, "collections": []}))
}

#[test]
fn a_full_spec_becomes_what_the_server_and_the_engine_take() {
    let validated = check(json!({
        "parameters": {"path": "/data"},
        "inputs": {"base": {"persistedCollection": "base-table", "output": "base"}},
        "workers": {
            "matchLabels": {"disk": "nvme"},
            "matchExpressions": [{"key": "zone", "operator": "NotIn", "values": ["a"]}],
            "names": ["w-0"],
        },
        "allowOtherWorkers": true,
        "resources": {"GPU": 0.5},
        "retries": 2,
        "persistence": {"replicas": 3},
        "priority": -1.5,
        "fifoTimeout": "1.5 minutes",
        "actors": {"all": true, "tasks": {"model": false}},
    }))
    .unwrap();
    assert_eq!(validated.build.inputs["base"].collection, "base-table");
    assert!(!validated.build.actors.tasks["model"]);
    let requirements = validated.requirements;
    let workers = requirements.workers.unwrap();
    assert_eq!(workers.match_labels["disk"], "nvme");
    assert_eq!(workers.match_expressions[0].operator, Operator::NotIn);
    assert_eq!(requirements.resources.get("GPU"), Amount::from_f64(0.5).unwrap());
    assert_eq!((requirements.retries, requirements.priority, requirements.fifo_timeout_ms), (2, -1.5, 90_000));
    assert_eq!(requirements.replicas, 3);
}

#[test]
fn the_defaults_are_those_of_persist() {
    let validated = check(json!({})).unwrap();
    assert_eq!(validated.requirements, Requirements::default());
    assert!(validated.build.optimize_graph);
}

#[test]
fn an_empty_selector_restricts_nothing() {
    assert_eq!(check(json!({"workers": {}})).unwrap().requirements.workers, None);
}

/// A spec's fields, and the message that they get.
const REFUSED: &[(&str, &str)] = &[
    (r#"{"source": {}}"#, "spec.source: must have exactly one of python, pythonFrom, entrypoint and tasks; has none"),
    (
        r#"{"source": {"python": "x", "tasks": []}}"#,
        "spec.source: must have exactly one of python, pythonFrom, entrypoint and tasks; has python and tasks",
    ),
    (
        r#"{"source": {"python": " \n"}}"#,
        "spec.source.python: is empty; write Python text that defines the names in spec.collections",
    ),
    (r#"{"source": {"pythonFrom": {}}}"#, "spec.source.pythonFrom: must have exactly one of configMapKeyRef and secretKeyRef"),
    (
        r#"{"source": {"pythonFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}}}"#,
        "spec.source.pythonFrom: refers to a ConfigMap or Secret, and there is none to read here; write the text into python instead",
    ),
    (
        r#"{"source": {"entrypoint": {"callable": "acme.build"}}}"#,
        r#"spec.source.entrypoint.callable: `acme.build` is not "module:name", for example "acme.pipelines:build""#,
    ),
    (r#"{"collections": []}"#, "spec.collections: must name at least one variable of the source to persist, for example [daily]"),
    (
        r#"{"collections": ["a-b"]}"#,
        "spec.collections: `a-b` is not the name of a Python variable: letters, digits and underscores, not starting with a digit",
    ),
    (r#"{"collections": ["class"]}"#, "spec.collections: `class` is a keyword of Python and cannot name a variable"),
    (r#"{"collections": ["x", "x"]}"#, "spec.collections: has `x` twice"),
    (
        r#"{"parameters": {"false": 1}}"#,
        "spec.parameters: has a value named `false`: YAML takes the bare words y, n, yes, no, on and off for booleans; quote the name",
    ),
    (
        r#"{"inputs": {"x": {"persistedCollection": "daily", "output": "x"}}}"#,
        "spec.inputs.x: names this collection itself; it can only read others",
    ),
    (
        r#"{"inputs": {"params": {"persistedCollection": "a", "output": "x"}}}"#,
        "spec.inputs.params: would hide `params`, which holds spec.parameters; choose another name",
    ),
    (
        r#"{"allowOtherWorkers": true}"#,
        "spec.allowOtherWorkers: needs workers: without matchLabels, matchExpressions or names there is nothing to prefer",
    ),
    (
        r#"{"workers": {"matchLabels": {"a b": "c"}}}"#,
        r#"spec.workers.matchLabels: `a b` is not the key of a label, for example "disk" or "topology.kubernetes.io/zone""#,
    ),
    (
        r#"{"workers": {"matchExpressions": [{"key": "a", "operator": "Is"}]}}"#,
        "spec.workers.matchExpressions[0].operator: `Is` is none of In, NotIn, Exists and DoesNotExist",
    ),
    (
        r#"{"workers": {"matchExpressions": [{"key": "a", "operator": "In"}]}}"#,
        "spec.workers.matchExpressions[0].values: operators In and NotIn need values; Exists and DoesNotExist take none",
    ),
    (r#"{"resources": {"GPU": -1}}"#, "spec.resources.GPU: found -1, but an amount is a number from 0 to 1000000000000"),
    (
        r#"{"resources": {"": 1}}"#,
        "spec.resources: `` is not the name of a resource, for example GPU: letters, digits and any of _./:-, at most 63",
    ),
    (r#"{"persistence": {"replicas": 0}}"#, "spec.persistence.replicas: 0 is not from 1 to 16"),
    (r#"{"persistence": {"replicas": 17}}"#, "spec.persistence.replicas: 17 is not from 1 to 16"),
    (r#"{"retries": -1}"#, "spec.retries: -1 is not from 0 to 1000"),
    (r#"{"retries": 1001}"#, "spec.retries: 1001 is not from 0 to 1000"),
    (r#"{"priority": 2e9}"#, "spec.priority: 2000000000 is not a number from -1e9 to 1e9"),
    (
        r#"{"fifoTimeout": "60 parsecs"}"#,
        r#"spec.fifoTimeout: `60 parsecs` must be a Dask duration such as "60s", "1.5 minutes", "100ms" or "2h"; a number alone means seconds"#,
    ),
    (r#"{"fifoTimeout": "53w"}"#, "spec.fifoTimeout: `53w` is longer than a year (365 days)"),
    (
        r#"{"source": {"tasks": [{"key": "a", "call": "m:f"}, {"key": "a", "call": "m:f"}]}, "collections": []}"#,
        "spec.source.tasks[1].key: has `a` twice",
    ),
    (
        r#"{"source": {"tasks": [{"key": "a", "call": "m:f", "args": [[{"task": "b"}]]}]}, "collections": []}"#,
        "spec.source.tasks[0]: takes the result of `b`, which is no key of spec.source.tasks",
    ),
    (
        r#"{"source": {"tasks": [{"key": "a", "call": "m:f", "args": [{"input": "b"}]}]}, "collections": []}"#,
        "spec.source.tasks[0]: takes the input `b`, which spec.inputs does not have",
    ),
    (
        r#"{"source": {"tasks": [{"key": "a", "call": "m:f"}]}, "collections": ["b"]}"#,
        "spec.collections: `b` is no key of spec.source.tasks",
    ),
    (
        r#"{"source": {"tasks": [{"key": "a", "call": "m:f", "retries": -2}]}, "collections": []}"#,
        "spec.source.tasks[0].retries: -2 is not from 0 to 1000",
    ),
    (
        r#"{"source": {"tasks": [{"key": "a", "call": "m:f"}, {"key": "b", "call": "m:f", "priority": -2e9}]}, "collections": []}"#,
        "spec.source.tasks[1].priority: -2000000000 is not a number from -1e9 to 1e9",
    ),
    (
        r#"{"source": {"tasks": [{"key": "a", "call": "m:f", "workers": {"matchLabels": {"disk": "-"}}}]}, "collections": []}"#,
        "spec.source.tasks[0].workers.matchLabels.disk: `-` is not the value of a label: at most 63 letters, digits and any of _.-, with a letter or digit at both ends",
    ),
    (
        r#"{"source": {"tasks": [{"key": "a", "call": "m:f", "workers": {"matchExpressions": [{"key": "a", "operator": "Is"}]}}]}, "collections": []}"#,
        "spec.source.tasks[0].workers.matchExpressions[0].operator: `Is` is none of In, NotIn, Exists and DoesNotExist",
    ),
    (
        r#"{"source": {"tasks": [{"key": "a", "call": "m:f", "workers": {"names": ["w", "w"]}}]}, "collections": []}"#,
        "spec.source.tasks[0].workers.names: has `w` twice",
    ),
    (
        r#"{"source": {"tasks": [{"key": "a", "call": "m:f", "allowOtherWorkers": true}]}, "collections": []}"#,
        "spec.source.tasks[0].allowOtherWorkers: needs workers: without matchLabels, matchExpressions or names there is nothing to prefer",
    ),
    (
        r#"{"overrides": [{"keys": "load-*"}]}"#,
        "spec.overrides[0]: says nothing: give at least one of retries, priority, workers, allowOtherWorkers and resources for the tasks that match",
    ),
    (r#"{"overrides": [{"keys": "a", "retries": 1}, {"keys": "", "retries": 1}]}"#, "spec.overrides[1].keys: is empty"),
    (r#"{"overrides": [{"keys": "a", "retries": 1}, {"keys": "a", "priority": 1}]}"#, "spec.overrides: has `a` twice"),
    (
        r#"{"overrides": [{"keys": "load-[", "retries": 1}]}"#,
        "spec.overrides[0].keys: `load-[` is no pattern: unclosed character class; missing ']'",
    ),
    (
        r#"{"source": {"tasks": [{"key": "load-0", "call": "m:f"}]}, "collections": [], "actors": {"tasks": {"laod-0": true}}}"#,
        "spec.actors.tasks: `laod-0` is no key of spec.source.tasks (did you mean `load-0`?)",
    ),
    (
        r#"{"source": {"tasks": [{"key": "a", "call": "m:f"}]}, "collections": [], "optimizeOptions": {"fuse": true}}"#,
        "spec.optimizeOptions: does nothing: spec.source.tasks are not optimised",
    ),
    (r#"{"overrides": [{"keys": "a", "retries": -1}]}"#, "spec.overrides[0].retries: -1 is not from 0 to 1000"),
    (
        r#"{"overrides": [{"keys": "a", "priority": 2e9}]}"#,
        "spec.overrides[0].priority: 2000000000 is not a number from -1e9 to 1e9",
    ),
    (
        r#"{"overrides": [{"keys": "a", "resources": {"GPU": -1}}]}"#,
        "spec.overrides[0].resources.GPU: found -1, but an amount is a number from 0 to 1000000000000",
    ),
    (
        r#"{"overrides": [{"keys": "a", "workers": {"matchLabels": {"a b": "c"}}}]}"#,
        r#"spec.overrides[0].workers.matchLabels: `a b` is not the key of a label, for example "disk" or "topology.kubernetes.io/zone""#,
    ),
];

#[test]
fn single_tasks_and_overrides_may_say_all_that_the_collection_may() {
    let validated = check(json!({
        "source": {"tasks": [{
            "key": "a", "call": "m:f", "priority": -0.5, "retries": 3, "resources": {"GPU": 1}, "actor": true,
            "workers": {"matchLabels": {"disk": "nvme"}, "names": ["w-0"]}, "allowOtherWorkers": true,
        }]},
        "collections": [],
        "overrides": [
            {"keys": "a", "priority": 2, "retries": 0, "workers": {}, "allowOtherWorkers": false, "resources": {}},
        ],
    }))
    .unwrap();
    let server::Source::Tasks(tasks) = &validated.build.source else { panic!("{:?}", validated.build) };
    let workers = tasks[0].workers.as_ref().unwrap();
    assert_eq!((workers.match_labels["disk"].as_str(), workers.names.as_slice()), ("nvme", &["w-0".to_owned()][..]));
    assert_eq!((tasks[0].priority, tasks[0].allow_other_workers), (Some(-0.5), Some(true)));
    let [one] = validated.requirements.overrides.as_slice() else { panic!("{:?}", validated.requirements) };
    assert_eq!((one.keys.as_str(), one.conditions.retries, one.conditions.priority), ("a", Some(0), Some(2.0)));
    assert_eq!(one.conditions.workers, Some(WorkerSelector::default()));
    assert_eq!((one.conditions.allow_other_workers, &one.conditions.resources), (Some(false), &Some(Resources::default())));
}

#[test]
fn what_cannot_be_carried_out_is_refused_with_one_message() {
    for (fields, message) in REFUSED {
        let refused = check(serde_json::from_str(fields).unwrap()).expect_err(fields);
        assert_eq!(refused.to_string(), *message, "{fields}");
    }
}

#[test]
fn a_priority_that_is_no_number_is_refused() {
    for priority in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let spec = PersistedCollectionSpec { priority, ..spec(json!({})) };
        assert!(validate("daily", &spec, None).is_err(), "{priority}");
    }
}

#[test]
fn a_circle_of_tasks_is_named() {
    let refused = tasks(json!([
        {"key": "x", "call": "m:f", "args": [{"task": "a"}]},
        {"key": "a", "call": "m:f", "args": [{"task": "b"}]},
        {"key": "b", "call": "m:f", "kwargs": {"deep": {"in": [{"task": "a"}]}}},
    ]))
    .unwrap_err();
    assert_eq!(refused.to_string(), "spec.source.tasks: tasks need each other in a circle: a → b → a");
    let itself = tasks(json!([{"key": "a", "call": "m:f", "args": [{"task": "a"}]}])).unwrap_err();
    assert_eq!(itself.to_string(), "spec.source.tasks: tasks need each other in a circle: a → a");
}

#[test]
fn a_long_chain_of_tasks_is_no_circle() {
    let chain: Vec<Value> = (0..10_000)
        .map(|i| json!({"key": format!("t{i}"), "call": "m:f", "args": if i == 0 { json!([]) } else { json!([{"task": format!("t{}", i - 1)}]) }}))
        .collect();
    let validated = tasks(Value::Array(chain)).unwrap();
    assert_eq!(validated.build.collections, ["t9999"]);
}

#[test]
fn without_collections_the_tasks_that_nobody_takes_are_kept() {
    let validated = tasks(json!([
        {"key": "load", "call": "m:f"},
        {"key": "left", "call": "m:f", "args": [{"task": "load"}]},
        {"key": "right", "call": "m:f", "args": [{"task": "load"}, {"task": "left", "more": 1}]},
    ]))
    .unwrap();
    assert_eq!(validated.build.collections, ["left", "right"]);
}

#[test]
fn too_many_tasks_that_nobody_takes_must_be_named() {
    let many: Vec<Value> = (0..65).map(|i| json!({"key": format!("t{i}"), "call": "m:f"})).collect();
    let refused = tasks(Value::Array(many)).unwrap_err();
    assert!(refused.to_string().contains("has 65 tasks that no other task takes"), "{refused}");
}

#[test]
fn only_what_decides_the_graph_makes_another_revision() {
    let revision = |fields: &str| check(serde_json::from_str(fields).unwrap()).unwrap().revision;
    let first = revision("{}");
    for same in [
        r#"{"priority": 5}"#,
        r#"{"retries": 3}"#,
        r#"{"resources": {"GPU": 1}}"#,
        r#"{"workers": {"names": ["w"]}}"#,
        r#"{"fifoTimeout": "1s"}"#,
        r#"{"overrides": [{"keys": "*", "retries": 1}]}"#,
        r#"{"parameters": {}}"#,
    ] {
        assert_eq!(revision(same), first, "{same}");
    }
    for other in [
        r#"{"source": {"python": "x = 2"}}"#,
        r#"{"parameters": {"a": 1}}"#,
        r#"{"collections": ["y"]}"#,
        r#"{"optimizeGraph": false}"#,
        r#"{"optimizeOptions": {"a": 1}}"#,
        r#"{"inputs": {"b": {"persistedCollection": "b", "output": "b"}}}"#,
        r#"{"actors": {"all": true}}"#,
    ] {
        assert_ne!(revision(other), first, "{other}");
    }
    assert_eq!(revision(r#"{"parameters": {"a": 1, "b": 2}}"#), revision(r#"{"parameters": {"b": 2, "a": 1}}"#));
}

#[test]
fn a_revision_is_the_same_in_every_process_and_release() {
    assert_eq!(check(json!({})).unwrap().revision, "25a50635f444f9df833b166458928413");
}
