use bytes::Bytes;

use super::*;

fn worker(number: usize) -> WorkerAddress {
    WorkerAddress::new(format!("tcp://10.0.0.{number}:1"))
}

fn workers(count: usize) -> Vec<WorkerAddress> {
    (1..=count).map(worker).collect()
}

fn id(name: &str) -> ShuffleId {
    ShuffleId::new(name)
}

fn spec(name: &str, partitions: i64) -> ShuffleSpec {
    let outputs = (0..partitions).map(|place| (TaskKey::from_text(&format!("out-{place}")), place as u32)).collect();
    let partitions = (0..partitions).map(Partition::Number).collect();
    ShuffleSpec { id: id(name), pickle: Bytes::new(), partitions, outputs }
}

fn shuffles(specs: &[(&str, i64)]) -> Shuffles {
    let mut shuffles = Shuffles::default();
    shuffles.declare(specs.iter().map(|(name, partitions)| spec(name, *partitions)).collect());
    shuffles
}

fn makers(run: &Run) -> Vec<WorkerAddress> {
    run.worker_for().map(|(_, worker)| worker.clone()).collect()
}

#[test]
fn partitions_go_to_workers_in_ranges() {
    let mut shuffles = shuffles(&[("s", 5)]);
    let run = shuffles.start(&id("s"), &worker(1), workers(2), &[]).unwrap();
    assert_eq!(run.number(), 1);
    assert_eq!(makers(run), [worker(1), worker(1), worker(1), worker(2), worker(2)]);
    let outputs: Vec<_> = run.places_of_outputs().map(|(key, worker)| (key.to_string(), worker.clone())).collect();
    assert_eq!(outputs[2], ("out-2".to_owned(), worker(1)));
    assert_eq!(outputs[4], ("out-4".to_owned(), worker(2)));
}

#[test]
fn small_shuffles_are_spread() {
    let mut shuffles = shuffles(&[("a", 1), ("b", 1), ("c", 1)]);
    let found: Vec<_> =
        ["a", "b", "c"].iter().map(|name| makers(shuffles.start(&id(name), &worker(1), workers(3), &[]).unwrap())).collect();
    assert_eq!(found, [[worker(1)], [worker(2)], [worker(3)]]);
}

#[test]
fn both_sides_of_a_join_make_a_partition_in_the_same_place() {
    let mut shuffles = shuffles(&[("left", 4), ("right", 5)]);
    let left = makers(shuffles.start(&id("left"), &worker(1), workers(2), &[]).unwrap());
    // A third worker has joined meanwhile.
    let right = makers(shuffles.start(&id("right"), &worker(3), workers(3), &[id("left")]).unwrap());
    assert_eq!(left, right[..4]);
    assert!(shuffles.active[&id("right")].has(&worker(3)));
}

#[test]
fn who_asks_takes_part() {
    let mut shuffles = shuffles(&[("s", 2)]);
    assert_eq!(shuffles.join(&id("s"), &worker(9)).unwrap_err(), Refusal::NotActive { id: id("s") });
    shuffles.start(&id("s"), &worker(3), workers(2), &[]).unwrap();
    shuffles.join(&id("s"), &worker(4)).unwrap();
    let found: Vec<_> = shuffles.check(&id("s"), 1).unwrap().participants().cloned().collect();
    assert_eq!(found, workers(4));
}

#[test]
fn a_run_whose_worker_is_gone_is_given_up_and_the_next_has_a_higher_number() {
    let mut shuffles = shuffles(&[("s", 2), ("t", 2)]);
    shuffles.start(&id("s"), &worker(1), workers(2), &[]).unwrap();
    shuffles.start(&id("t"), &worker(3), vec![worker(3)], &[]).unwrap();
    let broken = shuffles.worker_left(&worker(2));
    assert_eq!(broken.iter().map(|run| run.id().as_str()).collect::<Vec<_>>(), ["s"]);
    assert_eq!(shuffles.check(&id("s"), 1).unwrap_err(), Refusal::NotActive { id: id("s") });
    assert_eq!(shuffles.start(&id("s"), &worker(1), workers(1), &[]).unwrap().number(), 3);
    assert_eq!(shuffles.check(&id("t"), 2).unwrap().number(), 2);
}

#[test]
fn what_comes_of_another_run_is_refused() {
    let mut shuffles = shuffles(&[("s", 2)]);
    shuffles.start(&id("s"), &worker(1), workers(2), &[]).unwrap();
    assert!(shuffles.end(&id("s")).is_some());
    assert!(shuffles.end(&id("s")).is_none());
    shuffles.start(&id("s"), &worker(1), workers(2), &[]).unwrap();
    assert_eq!(shuffles.check(&id("s"), 1).unwrap_err(), Refusal::Stale { id: id("s"), found: 1, expected: 2 });
    assert_eq!(shuffles.check(&id("s"), 7).unwrap_err(), Refusal::Invalid { id: id("s"), found: 7, expected: 2 });
    assert!(shuffles.check(&id("s"), 2).is_ok());
}

#[test]
fn what_cannot_start_uses_up_no_number() {
    let mut shuffles = shuffles(&[("s", 0), ("t", 1)]);
    assert_eq!(shuffles.start(&id("x"), &worker(1), workers(1), &[]).unwrap_err(), Refusal::Unknown { id: id("x") });
    assert_eq!(shuffles.start(&id("t"), &worker(1), Vec::new(), &[]).unwrap_err(), Refusal::NoWorkers { id: id("t") });
    // Nothing to make is no reason to fail.
    assert_eq!(makers(shuffles.start(&id("s"), &worker(1), workers(2), &[]).unwrap()), []);
}

#[test]
fn what_is_in_no_graph_is_forgotten_once_it_is_over() {
    let mut shuffles = shuffles(&[("s", 1), ("t", 1)]);
    shuffles.start(&id("s"), &worker(1), workers(1), &[]).unwrap();
    shuffles.forget_unless(|_| false);
    assert!(shuffles.is_declared(&id("s")) && !shuffles.is_declared(&id("t")));
    shuffles.end(&id("s"));
    shuffles.forget_unless(|_| false);
    assert!(shuffles.is_empty());
}
