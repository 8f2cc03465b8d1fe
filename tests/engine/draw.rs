//! What random numbers stand for: graphs, requirements, choices.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use mainstay::dask::{RunSpec, TaskKey};
use mainstay::engine::{Amount, Annotations, Graph, GraphTask, Override, Overrides, Requirements, Resources, WorkerSelector};

/// All graphs share these keys, so that they meet.
pub(crate) const KEYS: u32 = 24;

/// A number that says many things, one after the other.
pub(crate) struct Draw(u64);

impl Draw {
    pub(crate) fn new(seed: u32) -> Self {
        Self(u64::from(seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) % u64::from(bound.max(1))) as u32
    }

    pub(crate) fn one_in(&mut self, times: u32) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn pick<T: Clone>(&mut self, items: &[T]) -> Option<T> {
        items.get(self.below(items.len() as u32) as usize).cloned()
    }
}

pub(crate) fn key(index: u32) -> TaskKey {
    TaskKey::from_text(&format!("k{}-{index}", index % 3))
}

/// A graph, and the keys that are wanted of it.
pub(crate) fn graph(draw: &mut Draw) -> (Graph, Vec<TaskKey>) {
    let mut graph = Graph::default();
    let odd = draw.one_in(12);
    for index in (0..KEYS).filter(|_| draw.one_in(2)).collect::<Vec<_>>() {
        let bound = if odd { KEYS } else { index };
        let mut dependencies: Vec<TaskKey> = (0..draw.below(4)).map(|_| key(draw.below(bound))).collect();
        // Odd graphs name keys that nobody knows, and have cycles; the others are closed.
        dependencies.retain(|dependency| odd || graph.tasks.iter().any(|task: &GraphTask| graph.key(task) == dependency));
        let annotations = draw.one_in(5).then(|| {
            graph.annotations.push(annotations(draw));
            graph.annotations.len() as u32 - 1
        });
        let (key, dependencies) = places(&mut graph, &key(index), &dependencies);
        graph.tasks.push(GraphTask {
            key,
            dependencies,
            order: i64::from(index),
            data_producer: draw.one_in(4),
            actor: draw.one_in(25),
            annotations,
            run_spec: RunSpec::new(Bytes::from_static(b"run")),
        });
    }
    let wanted = graph.tasks.iter().filter(|_| draw.one_in(3)).map(|task| graph.key(task).clone()).collect();
    (graph, wanted)
}

/// Where a graph has a key and its dependencies, which are added to it where it lacks them.
pub(crate) fn places(graph: &mut Graph, key: &TaskKey, dependencies: &[TaskKey]) -> (u32, Range<u32>) {
    let start = graph.edges.len() as u32;
    for dependency in dependencies {
        let place = place(graph, dependency);
        graph.edges.push(place);
    }
    (place(graph, key), start..graph.edges.len() as u32)
}

/// Where a graph has a key, which is added to it where it lacks it.
pub(crate) fn place(graph: &mut Graph, key: &TaskKey) -> u32 {
    let place = graph.keys.iter().position(|other| other == key).unwrap_or_else(|| {
        graph.keys.push(key.clone());
        graph.keys.len() - 1
    });
    place as u32
}

pub(crate) fn requirements(draw: &mut Draw) -> Requirements {
    let mut requirements = Requirements {
        retries: draw.below(3),
        priority: f64::from(draw.below(3)),
        fifo_timeout_ms: 500,
        allow_other_workers: draw.one_in(3),
        replicas: if draw.one_in(3) { 1 + draw.below(3) } else { 1 },
        ..Requirements::default()
    };
    if draw.one_in(4) {
        requirements.resources = gpus(draw);
    }
    if draw.one_in(3) {
        let patterns = ["k0", "k1-*", "k?-1", "*", "nothing"];
        let list = patterns.iter().filter(|_| draw.one_in(2)).collect::<Vec<_>>();
        let list = list.into_iter().map(|keys| Override { keys: (*keys).to_owned(), conditions: annotations(draw) });
        requirements.overrides = Overrides::new(list.collect()).expect("patterns");
    }
    if draw.one_in(4) {
        let match_labels = BTreeMap::from([("disk".to_owned(), "nvme".to_owned())]);
        requirements.workers = Some(WorkerSelector { match_labels, ..WorkerSelector::default() });
    }
    requirements
}

pub(crate) fn annotations(draw: &mut Draw) -> Annotations {
    Annotations {
        retries: draw.one_in(2).then(|| draw.below(3)),
        priority: draw.one_in(2).then(|| f64::from(draw.below(5))),
        resources: draw.one_in(2).then(|| gpus(draw)),
        ..Annotations::default()
    }
}

pub(crate) fn gpus(draw: &mut Draw) -> Resources {
    Resources(BTreeMap::from([("GPU".to_owned(), amount(1 + draw.below(2)))]))
}

pub(crate) fn amount(whole: u32) -> Amount {
    Amount::from_f64(f64::from(whole)).expect("an amount")
}
