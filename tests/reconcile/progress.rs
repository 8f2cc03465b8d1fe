//! What the server says becomes a status, sparingly.

use std::time::Duration;

use mainstay::server::Stage;
use serde_json::json;

use crate::world::{UID, World, persisted, report, running};

#[tokio::test(start_paused = true)]
async fn news_wait_until_two_seconds_after_the_last_write() {
    let world = World::taken().await;
    world.stand_in.publish(UID, running(1));
    world.pass(Duration::from_millis(500)).await;
    let outcome = world.reconcile().await;
    assert_eq!(outcome.requests, [""; 0]);
    assert_eq!(outcome.result.unwrap(), Some(Duration::from_millis(1500)));
    world.pass(Duration::from_millis(1500)).await;
    let requests = world.reconcile().await.settled();
    assert_eq!(requests, ["status Running@1 Ready=False/Running", "event Normal GraphAccepted: the graph has 4 tasks"]);
}

#[tokio::test(start_paused = true)]
async fn persisted_collection_is_told_once_and_then_left_alone() {
    let world = World::taken().await;
    world.stand_in.publish(UID, persisted());
    world.pause().await;
    let requests = world.reconcile().await.settled();
    assert_eq!(
        requests,
        [
            "status Persisted@1 Ready=True/Persisted",
            "event Normal GraphAccepted: the graph has 4 tasks",
            "event Normal Persisted: the output is in memory: 4.0 KiB",
        ]
    );
    for _ in 0..600 {
        world.pass(Duration::from_secs(1)).await;
        assert_eq!(world.reconcile().await.settled(), [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn running_collection_is_written_at_most_every_two_seconds() {
    let world = World::taken().await;
    let mut writes = 0;
    for second in 0..20 {
        for tenth in 0..10 {
            world.stand_in.publish(UID, running((second * 10 + tenth) % 4));
            world.pass(Duration::from_millis(100)).await;
            let requests = world.reconcile().await.settled();
            writes += requests.iter().filter(|line| line.starts_with("status")).count();
        }
    }
    assert!((8..=10).contains(&writes), "{writes} writes in 20 s");
}

#[tokio::test(start_paused = true)]
async fn cache_that_lags_behind_our_own_write_causes_no_second_one() {
    let world = World::taken().await;
    let stale = world.api.collection();
    world.stand_in.publish(UID, persisted());
    world.pause().await;
    assert_eq!(world.reconcile().await.settled().len(), 3);
    world.pause().await;
    assert_eq!(world.reconcile_cached(stale).await.settled(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn edited_collection_keeps_its_status_until_the_server_has_taken_the_edit() {
    let mut world = World::taken().await;
    world.stand_in.publish(UID, persisted());
    world.pause().await;
    world.reconcile().await.settled();
    world.stand_in.taken();
    world.api.change(|collection| {
        collection["spec"]["priority"] = json!(5);
        collection["metadata"]["generation"] = json!(2);
    });
    world.pause().await;
    assert_eq!(world.reconcile().await.settled(), [""; 0]);
    assert_eq!(world.stand_in.taken(), ["apply uid-1 2"]);
    world.stand_in.publish(UID, mainstay::server::Report { generation: 2, ..persisted() });
    assert_eq!(world.reconcile().await.settled(), ["status Persisted@2 Ready=True/Persisted"]);
    assert_eq!(world.stand_in.taken(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn server_that_started_anew_is_told_again() {
    let mut world = World::taken().await;
    world.stand_in.publish(UID, persisted());
    world.pause().await;
    world.reconcile().await.settled();
    world.stand_in.taken();
    world.stand_in.withdraw(UID);
    world.reconcile().await.settled();
    assert_eq!(world.stand_in.taken(), ["apply uid-1 1"]);
}

#[tokio::test(start_paused = true)]
async fn object_that_is_gone_when_its_status_is_written_is_no_failure_to_count() {
    let world = World::taken().await;
    world.stand_in.publish(UID, report(1, Stage::Building { worker: "w-0".to_owned() }, None));
    world.pause().await;
    world.api.refuse("status", 404);
    let outcome = world.reconcile().await;
    assert_eq!(outcome.requests, ["status Building@1 Ready=False/Building"]);
    assert_eq!(outcome.result.unwrap_err().reason(), "WriteStatus");
}
