//! Deleted objects go when their memory is free, and never hang.

use std::time::Duration;

use serde_json::json;

use crate::world::{UID, World, persisted};

async fn persisted_then_deleted() -> World {
    let mut world = World::taken().await;
    world.stand_in.publish(UID, persisted());
    world.pause().await;
    world.reconcile().await.settled();
    world.stand_in.taken();
    world.api.change(|collection| collection["metadata"]["deletionTimestamp"] = json!("2026-01-01T01:00:00Z"));
    world
}

#[tokio::test(start_paused = true)]
async fn deleted_collection_releases_before_finalizer_goes() {
    let mut world = persisted_then_deleted().await;
    world.pause().await;
    let outcome = world.reconcile().await;
    assert_eq!(outcome.requests, ["status Releasing@1 Ready=False/Releasing"]);
    assert_eq!(outcome.result.unwrap(), Some(Duration::from_secs(1)));
    assert_eq!(world.stand_in.taken(), ["remove uid-1"]);

    world.stand_in.withdraw(UID);
    let requests = world.reconcile().await.settled();
    assert_eq!(requests, ["finalizers [] at version 6", "event Normal Released: the memory of the workers is free"]);
}

#[tokio::test(start_paused = true)]
async fn deleted_collection_without_a_server_goes_at_once() {
    let world = persisted_then_deleted().await;
    world.servers.remove("analytics");
    assert_eq!(world.reconcile().await.settled(), ["finalizers [] at version 5"]);
}

#[tokio::test(start_paused = true)]
async fn release_that_is_never_confirmed_holds_up_a_deletion_for_a_minute() {
    let world = persisted_then_deleted().await;
    let mut seconds = 0;
    let requests = loop {
        let requests = world.reconcile().await.settled();
        if requests.iter().any(|line| line.starts_with("finalizers")) {
            break requests;
        }
        world.pass(Duration::from_secs(1)).await;
        seconds += 1;
        assert!(seconds <= 60, "still held after {seconds} s");
    };
    assert_eq!(seconds, 60);
    assert!(requests[1].starts_with("event Warning Released: the scheduler did not confirm"), "{requests:?}");
}

#[tokio::test(start_paused = true)]
async fn collection_that_was_gone_when_its_finalizer_was_taken_off_is_done() {
    let world = persisted_then_deleted().await;
    world.stand_in.withdraw(UID);
    world.api.refuse("finalizers", 404);
    assert_eq!(world.reconcile().await.result.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn deleted_collection_that_others_hold_is_released_and_left_alone() {
    let mut world = persisted_then_deleted().await;
    world.api.change(|collection| collection["metadata"]["finalizers"] = json!(["other.dev/x"]));
    let outcome = world.reconcile().await;
    assert_eq!(outcome.requests, [""; 0]);
    assert_eq!(outcome.result.unwrap(), None);
    assert_eq!(world.stand_in.taken(), ["remove uid-1"]);
}

#[tokio::test(start_paused = true)]
async fn new_collection_of_the_same_name_is_another() {
    let mut world = persisted_then_deleted().await;
    world.stand_in.withdraw(UID);
    world.reconcile().await.settled();
    world.stand_in.taken();
    world.api.change(|collection| {
        let metadata = collection["metadata"].as_object_mut().unwrap();
        metadata.remove("deletionTimestamp");
        metadata.insert("uid".to_owned(), json!("uid-2"));
        collection.as_object_mut().unwrap().remove("status");
    });
    let requests = world.reconcile().await.settled();
    assert_eq!(requests[0], "status Pending@null Ready=Unknown/Accepted");
    assert_eq!(world.stand_in.taken(), ["apply uid-2 1"]);
}
