//! Sources in ConfigMaps and Secrets.

use std::time::Duration;

use mainstay::server::{BuildError, Stage};
use serde_json::{Value, json};

use crate::world::{UID, World, report};

const CONFIG_MAP: &str = "/api/v1/namespaces/analytics/configmaps/pipelines";
const SECRET: &str = "/api/v1/namespaces/analytics/secrets/pipelines";

fn from(reference: &str) -> Value {
    json!({
        "source": {"pythonFrom": {reference: {"name": "pipelines", "key": "sales.py"}}},
        "collections": ["daily"],
    })
}

fn config_map(key: &str, text: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "pipelines"}, "data": {key: text}})
}

#[tokio::test(start_paused = true)]
async fn missing_config_map_is_named_and_picked_up_when_it_appears() {
    let mut world = World::with(from("configMapKeyRef"));
    let outcome = world.reconcile().await;
    assert_eq!(
        outcome.requests,
        [
            format!("GET {CONFIG_MAP}").as_str(),
            "status Pending@1 Ready=False/SourceNotFound",
            "event Warning SourceNotFound: ConfigMap `pipelines` is not there; create it, and it is picked up",
        ]
    );
    assert_eq!(outcome.result.unwrap(), Some(Duration::from_secs(3)));
    assert_eq!(world.stand_in.taken(), [""; 0]);

    world.api.put(CONFIG_MAP, config_map("sales.py", "daily = 1"));
    world.pass(Duration::from_secs(3)).await;
    let requests = world.reconcile().await.settled();
    assert_eq!(requests, [format!("GET {CONFIG_MAP}").as_str(), r#"finalizers ["mainstay.dev/release"] at version 2"#]);
    assert_eq!(world.stand_in.taken(), ["apply uid-1 1"]);
}

#[tokio::test(start_paused = true)]
async fn wrong_key_is_named_with_those_that_are_there() {
    let world = World::with(from("configMapKeyRef"));
    world.api.put(CONFIG_MAP, config_map("other.py", "daily = 1"));
    let requests = world.reconcile().await.settled();
    assert_eq!(
        requests[1..],
        [
            "status Pending@1 Ready=False/SourceKeyNotFound",
            "event Warning SourceKeyNotFound: ConfigMap `pipelines` is there, but has no key `sales.py`; it has other.py",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn what_the_operator_may_not_read_is_said_so() {
    let world = World::with(from("secretKeyRef"));
    world.api.refuse("GET", 403);
    let requests = world.reconcile().await.settled();
    assert_eq!(
        requests[1..],
        [
            "status Pending@1 Ready=False/SourceForbidden",
            "event Warning SourceForbidden: the operator may not read Secret `pipelines`; give its ServiceAccount `get` on it",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn secret_of_another_type_is_no_source() {
    for type_ in ["kubernetes.io/tls", "kubernetes.io/service-account-token", "mainstay.dev/certificate-authority"] {
        let world = World::with(from("secretKeyRef"));
        // "daily = 1"
        let data = json!({"sales.py": "ZGFpbHkgPSAx"});
        world.api.put(SECRET, json!({"apiVersion": "v1", "kind": "Secret", "metadata": {}, "type": type_, "data": data}));
        let requests = world.reconcile().await.settled();
        assert_eq!(
            requests[1..],
            [
                "status Pending@1 Ready=False/SourceInvalid",
                "event Warning SourceInvalid: Secret `pipelines` is not of type Opaque, and only those can hold a source",
            ]
        );
        assert!(!world.api.everything_sent().contains("daily = 1"));
    }
}

#[tokio::test(start_paused = true)]
async fn changed_config_map_is_another_revision() {
    let mut world = World::with(from("configMapKeyRef"));
    world.api.put(CONFIG_MAP, config_map("sales.py", "daily = 1"));
    world.reconcile().await.settled();
    world.stand_in.taken();
    world.stand_in.publish(UID, report(1, Stage::Building { worker: "w-0".to_owned() }, None));
    world.pause().await;
    world.reconcile().await.settled();
    assert_eq!(world.stand_in.taken(), [""; 0]);

    world.api.put(CONFIG_MAP, config_map("sales.py", "daily = 2"));
    world.pass(Duration::from_secs(30)).await;
    assert_eq!(world.reconcile().await.settled(), [format!("GET {CONFIG_MAP}")]);
    assert_eq!(world.stand_in.taken(), ["apply uid-1 1"]);
}

#[tokio::test(start_paused = true)]
async fn text_of_a_secret_is_in_nothing_that_is_written() {
    let world = World::with(from("secretKeyRef"));
    // "daily = 1", as Secrets have it.
    world.api.put(SECRET, json!({"apiVersion": "v1", "kind": "Secret", "metadata": {}, "data": {"sales.py": "ZGFpbHkgPSAx"}}));
    world.reconcile().await.settled();
    let error = BuildError {
        kind: "Raised".to_owned(),
        message: "KeyError: 'hunter2'".to_owned(),
        traceback: Some("    daily = 1 / hunter2".to_owned()),
        line: Some(1),
    };
    world.stand_in.publish(UID, report(1, Stage::BuildFailed(error), None));
    world.pause().await;
    let requests = world.reconcile().await.settled();
    assert_eq!(requests[0], "status Failed@1 Ready=False/SourceRaised");
    assert_eq!(requests.len(), 2);
    let sent = world.api.everything_sent();
    assert!(!sent.contains("hunter2") && !sent.contains("daily = 1"), "{sent}");
}
