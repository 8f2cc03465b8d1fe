//! From a new object to one that its server knows.

use std::time::Duration;

use mainstay::comm::{Boottime, Fence};
use serde_json::json;

use crate::world::{UID, World, good_spec, persisted};

#[tokio::test(start_paused = true)]
async fn new_collection_is_handed_over_then_said_to_be_worked_on_then_held() {
    let mut world = World::new();
    let requests = world.reconcile().await.settled();
    assert_eq!(requests, ["status Pending@null Ready=Unknown/Accepted", r#"finalizers ["mainstay.dev/release"] at version 2"#]);
    assert_eq!(world.stand_in.taken(), ["apply uid-1 1"]);
}

#[tokio::test(start_paused = true)]
async fn taken_collection_without_news_makes_no_request() {
    let mut world = World::taken().await;
    for _ in 0..100 {
        world.pass(Duration::from_millis(100)).await;
        assert_eq!(world.reconcile().await.settled(), [""; 0]);
    }
    // It has no report, so the server is asked again each time; it takes the same request for what it is.
    assert!(world.stand_in.taken().iter().all(|taken| taken == "apply uid-1 1"));
}

#[tokio::test(start_paused = true)]
async fn collection_in_a_namespace_without_server_asks_for_one() {
    let world = World::new();
    world.servers.remove("analytics");
    world.reconcile().await.settled();
    assert_eq!(world.servers.wanted().await.into_iter().collect::<Vec<_>>(), ["analytics"]);
    world.pass(Duration::from_secs(5)).await;
    assert_eq!(world.reconcile().await.settled(), [""; 0]);
    world.pass(Duration::from_secs(6)).await;
    let requests = world.reconcile().await.settled();
    assert_eq!(requests, ["status Pending@null Ready=Unknown/WaitingForScheduler",]);
}

#[tokio::test(start_paused = true)]
async fn collection_of_a_namespace_that_another_operator_has_is_left_alone() {
    let mut world = World::new();
    world.servers.let_go("analytics");
    assert_eq!(world.reconcile().await.result.unwrap(), None);
    world.api.change(|collection| {
        collection["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        collection["metadata"]["finalizers"] = json!(["mainstay.dev/release"]);
    });
    let outcome = world.reconcile().await;
    assert_eq!((outcome.result.unwrap(), outcome.requests), (None, Vec::new()));
    assert_eq!(world.servers.wanted().await.into_iter().collect::<Vec<_>>(), ["analytics"]);
    assert_eq!(world.stand_in.taken(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_while_it_is_not_known_who_has_the_namespace() {
    let world = World::new();
    let fence = Fence::until(Boottime::default());
    world.servers.hold("analytics", fence.clone());
    let outcome = world.reconcile().await;
    assert_eq!((outcome.result.unwrap(), outcome.requests), (Some(Duration::from_secs(1)), Vec::new()));
    fence.extend(Boottime::MAX);
    assert_eq!(world.reconcile().await.settled().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn invalid_spec_gets_one_status_and_one_event_and_goes_nowhere() {
    let spec = json!({"source": {"tasks": [{"key": "a", "call": "m:f", "args": [{"task": "a"}]}]}});
    let mut world = World::with(spec);
    let requests = world.reconcile().await.settled();
    assert_eq!(
        requests,
        [
            "status Failed@1 Ready=False/InvalidSpec",
            "event Warning InvalidSpec: spec.source.tasks: tasks need each other in a circle: a → a",
        ]
    );
    world.pause().await;
    assert_eq!(world.reconcile().await.settled(), [""; 0]);
    assert_eq!(world.stand_in.taken(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn mended_spec_is_taken() {
    let mut world = World::with(json!({"source": {"python": "x"}, "collections": ["class"]}));
    world.reconcile().await.settled();
    world.api.change(|collection| {
        collection["spec"] = good_spec();
        collection["metadata"]["generation"] = json!(2);
    });
    world.pause().await;
    let requests = world.reconcile().await.settled();
    assert_eq!(requests, [r#"finalizers ["mainstay.dev/release"] at version 3"#]);
    assert_eq!(world.stand_in.taken(), ["apply uid-1 2"]);
}

#[tokio::test(start_paused = true)]
async fn finalizers_of_others_stay() {
    let world = World::new();
    world.api.change(|collection| collection["metadata"]["finalizers"] = json!(["other.dev/x"]));
    let requests = world.reconcile().await.settled();
    assert_eq!(requests[1], r#"finalizers ["other.dev/x","mainstay.dev/release"] at version 3"#);
}

#[tokio::test(start_paused = true)]
async fn conflict_is_looked_at_again_and_what_was_handed_over_stays() {
    let mut world = World::new();
    world.api.refuse("finalizers", 409);
    let outcome = world.reconcile().await;
    assert_eq!(outcome.result.unwrap_err().reason(), "ChangeFinalizers");
    assert_eq!(world.stand_in.taken(), ["apply uid-1 1"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_handed_over_is_taken_back_from_an_object_that_is_gone() {
    let mut world = World::new();
    world.api.refuse("finalizers", 404);
    world.reconcile().await.result.unwrap_err();
    assert_eq!(world.stand_in.taken(), ["apply uid-1 1", "remove uid-1"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_waits_until_the_watch_shows_why() {
    for code in [404, 409] {
        let mut world = World::new();
        let stale = world.api.collection();
        world.api.refuse("finalizers", code);
        world.reconcile_cached(stale.clone()).await.result.unwrap_err();
        world.stand_in.taken();
        for _ in 0..100 {
            world.pass(Duration::from_millis(100)).await;
            assert_eq!(world.reconcile_cached(stale.clone()).await.settled(), [""; 0]);
        }
        assert_eq!(world.stand_in.taken(), [""; 0]);
        world.stand_in.publish(UID, persisted());
        let requests = world.reconcile().await.settled();
        assert_eq!(requests[0], "status Persisted@1 Ready=True/Persisted");
    }
}

#[tokio::test(start_paused = true)]
async fn api_server_that_fails_is_an_error_to_retry() {
    let world = World::new();
    world.api.refuse("status", 500);
    let error = world.reconcile().await.result.unwrap_err();
    assert!(error.is_retryable());
    assert!(error.message().starts_with("failed to write the status: "), "{}", error.message());
}

#[tokio::test(start_paused = true)]
async fn event_that_is_refused_fails_nothing() {
    let world = World::with(json!({"source": {}, "collections": ["x"]}));
    world.api.refuse("event", 403);
    assert_eq!(world.reconcile().await.result.unwrap(), None);
}
