//! What is asked for: tasks, their dependencies, and what the source said of single tasks.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use crate::dask::{RunSpec, TaskKey};
use crate::engine::{Resources, WorkerSelector};

/// What the manifest calls tasks.
pub type TaskNames = BTreeMap<TaskKey, Arc<str>>;

/// The tasks of one collection's revision, or of one Client's `update-graph`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Graph {
    /// All keys that it names, each once.
    pub keys: Vec<TaskKey>,
    pub tasks: Vec<GraphTask>,
    /// What tasks depend on, as places in `keys`. Each task has a range of it.
    pub edges: Vec<u32>,
    /// What `GraphTask::annotations` points into.
    pub annotations: Vec<Annotations>,
    /// What the manifest calls its inline tasks, whose keys are made unique.
    pub names: TaskNames,
}

impl Graph {
    /// The key of a task of this graph.
    pub fn key(&self, task: &GraphTask) -> &TaskKey {
        &self.keys[task.key as usize]
    }

    /// The places in `keys` of what a task of this graph depends on.
    pub fn dependencies(&self, range: &Range<u32>) -> &[u32] {
        &self.edges[range.start as usize..range.end as usize]
    }
}

/// One task as the builder lowered it.
#[derive(Clone, Debug, PartialEq)]
pub struct GraphTask {
    /// Place in `Graph::keys`.
    pub key: u32,
    /// Places in `Graph::edges`. What is meant are keys of this graph, or keys that the engine knows already; in the order in
    /// which the run spec numbers them.
    pub dependencies: Range<u32>,
    /// The place that `dask.order` gave it.
    pub order: i64,
    /// Whether it reads data in (`data_producer` in Dask): such tasks are queued, not piled on workers.
    pub data_producer: bool,
    pub actor: bool,
    /// Index into `Graph::annotations`.
    pub annotations: Option<u32>,
    pub run_spec: RunSpec,
}

/// What `dask.annotate` or an inline task's own fields say; overrides the requirements of the whole graph.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Annotations {
    pub retries: Option<u32>,
    pub priority: Option<f64>,
    /// Which workers may run the task; a selector that is empty allows all.
    pub workers: Option<WorkerSelector>,
    pub allow_other_workers: Option<bool>,
    pub resources: Option<Resources>,
    /// The worker's executor to run in: `default`, `offload`, `actor` or one of its own.
    pub executor: Option<String>,
}
