//! One collection's record.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::dask::Priority;
use crate::engine::task::{Blame, StateName, Task};
use crate::engine::task_set::TaskSet;
use crate::engine::task_table::TaskId;
use crate::engine::{Annotations, CollectionId, Engine, Requirements, TaskCounts, UnmatchedOverride, WorkerId};

/// All that is known of a collection.
#[derive(Debug)]
pub(super) struct Collection {
    pub(super) requirements: Requirements,
    pub(super) generation: u64,
    /// Where it stands in the queue, while it has tasks there.
    pub(super) standing: Option<Priority>,
    /// The tasks of its graph; they are remembered while it exists.
    pub(super) members: TaskSet,
    pub(super) outputs: Vec<Output>,
    /// What the source said of single tasks, for those that said something.
    pub(super) annotated: BTreeMap<TaskId, Arc<Annotations>>,
    /// What the manifest calls its inline tasks.
    pub(super) names: BTreeMap<TaskId, Arc<str>>,
    pub(super) unmatched_overrides: Vec<UnmatchedOverride>,
    /// Members by state.
    counts: [u64; StateName::COUNT],
    /// Members whose work is done.
    done: u64,
    /// Members that failed themselves.
    pub(super) failed: TaskSet,
    /// All and only workers that run or hold members.
    pub(super) shares: BTreeMap<WorkerId, Share>,
    /// Members with runs that failed.
    pub(super) retried: TaskSet,
    pub(super) retries_used: u64,
    pub(super) worker_lost: u64,
    pub(super) losses: u64,
}

/// One named result.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) name: String,
    pub(super) keys: Vec<TaskId>,
}

/// What one worker has of a collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) tasks: u64,
    pub(super) nbytes: u64,
}

impl Collection {
    pub(super) fn new(requirements: Requirements) -> Self {
        Self {
            requirements,
            generation: 0,
            standing: None,
            members: TaskSet::default(),
            outputs: Vec::new(),
            annotated: BTreeMap::new(),
            names: BTreeMap::new(),
            unmatched_overrides: Vec::new(),
            counts: [0; StateName::COUNT],
            done: 0,
            failed: TaskSet::default(),
            shares: BTreeMap::new(),
            retried: TaskSet::default(),
            retries_used: 0,
            worker_lost: 0,
            losses: 0,
        }
    }

    /// Notes what the source said of a member in the latest revision, if anything.
    pub(super) fn annotate(&mut self, id: TaskId, annotations: Option<Arc<Annotations>>) {
        match annotations {
            Some(annotations) => self.annotated.insert(id, annotations),
            None => self.annotated.remove(&id),
        };
    }

    /// Adds a member's present state to the counters, or takes it out again.
    pub(super) fn count(&mut self, id: TaskId, task: &Task, by: i64) {
        let state = &mut self.counts[task.state_name() as usize];
        *state = state.strict_add_signed(by);
        self.done = self.done.strict_add_signed(if task.is_done() { by } else { 0 });
        if let Some(Blame::Own(_)) = task.blame() {
            if by > 0 {
                self.failed.insert(id);
            } else {
                self.failed.remove(id);
            }
        }
    }

    /// Counts what a worker has.
    pub(super) fn share(&mut self, worker: WorkerId, tasks: i64, nbytes: i64) {
        let share = self.shares.entry(worker).or_default();
        share.tasks = share.tasks.strict_add_signed(tasks);
        share.nbytes = share.nbytes.strict_add_signed(nbytes);
        if share.tasks == 0 {
            self.shares.remove(&worker);
        }
    }

    pub(super) fn task_counts(&self) -> TaskCounts {
        let of = |state: StateName| self.counts[state as usize];
        TaskCounts {
            total: self.counts.iter().sum(),
            released: of(StateName::Released),
            waiting: of(StateName::Waiting),
            no_worker: of(StateName::NoWorker),
            queued: of(StateName::Queued),
            processing: of(StateName::Processing),
            memory: of(StateName::Memory),
            erred: of(StateName::Erred),
            done: self.done,
        }
    }
}

impl Engine {
    /// Makes a task a member of a collection: it counts there, and is remembered.
    pub(super) fn join_collection(&mut self, id: TaskId, collection_id: CollectionId) {
        if self.tasks[id].member_of.contains(&collection_id) {
            return;
        }
        self.tasks[id].member_of.push(collection_id);
        self.count_member(id, collection_id, 1);
    }

    pub(super) fn leave_collection(&mut self, id: TaskId, collection_id: CollectionId) {
        self.count_member(id, collection_id, -1);
        self.tasks[id].member_of.retain(|member| *member != collection_id);
        self.unsettled.push_back(id);
    }

    fn count_member(&mut self, id: TaskId, collection_id: CollectionId, by: i64) {
        let task = &self.tasks[id];
        let Some(collection) = self.collections.get_mut(&collection_id) else { return };
        collection.count(id, task, by);
        if let Some(run) = task.run() {
            collection.share(run.worker, by, 0);
        }
        for holder in task.holders() {
            let nbytes = task.replicas().map_or(0, |replicas| replicas.nbytes);
            collection.share(*holder, by, by * nbytes as i64);
        }
        if by > 0 {
            collection.members.insert(id);
            if task.failures > 0 {
                collection.retried.insert(id);
            }
        } else {
            collection.members.remove(id);
            collection.retried.remove(id);
        }
        self.changed.insert(collection_id);
    }

    /// Counts something in all collections that have a task.
    pub(super) fn count_in_collections(&mut self, id: TaskId, mut change: impl FnMut(&mut Collection)) {
        for member in &self.tasks[id].member_of {
            if let Some(collection) = self.collections.get_mut(member) {
                change(collection);
                self.changed.insert(*member);
            }
        }
    }
}
