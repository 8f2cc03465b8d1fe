//! Takes a graph in.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustc_hash::FxHashSet;

use crate::dask::{Priority, TaskKey};
use crate::engine::cycle::{describe, find_cycle};
use crate::engine::owner::Owner;
use crate::engine::requirement_table::{Requirement, RequirementId};
use crate::engine::rules::refusal;
use crate::engine::task::{Blame, StateName, Task};
use crate::engine::task_table::TaskId;
use crate::engine::{Annotations, ClientId, Engine, Graph, GraphTask, Requirements, WorkerSelector};

/// On whose behalf a graph comes, and under which conditions.
pub(super) struct Intake<'a> {
    pub(super) owner: Owner,
    pub(super) requirements: &'a Requirements,
    pub(super) generation: f64,
}

/// A task of the graph, with what was said of it.
pub(super) struct TakenIn {
    pub(super) id: TaskId,
    pub(super) annotations: Option<Arc<Annotations>>,
}

impl Engine {
    /// Adds the tasks of a graph that are not known yet; the others keep what they have, as in Dask. Only what a collection
    /// brought itself and has neither run nor started is told anew how to run: somebody edited it because it failed.
    ///
    /// Nothing is limbo: a task that depends on a key nobody knows is refused, which fails it; so is every new task of a
    /// graph with a cycle or too many tasks. A task that was refused can be brought again by a later graph.
    pub(super) fn take_in_graph(&mut self, graph: Graph, intake: &Intake<'_>) -> Vec<TakenIn> {
        let annotations: Vec<Arc<Annotations>> = graph.annotations.into_iter().map(Arc::new).collect();
        let mut taken_in = Vec::with_capacity(graph.tasks.len());
        let mut fresh = Vec::new();
        let mut without_room = Vec::new();
        for graph_task in graph.tasks {
            let own = graph_task.annotations.and_then(|index| annotations.get(index as usize)).cloned();
            let Some((id, is_new)) = self.record(&graph_task, intake.owner) else {
                without_room.push(graph_task.key);
                continue;
            };
            if is_new {
                self.describe_task(id, &graph_task, own.as_deref(), intake);
                fresh.push((id, graph_task.dependencies));
            }
            taken_in.push(TakenIn { id, annotations: own });
        }
        let ids: Vec<TaskId> = fresh.iter().map(|(id, _)| *id).collect();
        // Tasks known before depend on a task of this graph only if that one was refused before.
        let has_old_dependents = ids.iter().any(|id| !self.tasks[*id].dependents.is_empty());
        let new: FxHashSet<TaskId> = ids.iter().copied().collect();
        let mut refused = self.connect(fresh);
        if let Some(cycle) = find_cycle(&self.tasks, &ids, |id| has_old_dependents || new.contains(&id)) {
            let message = format!("the graph has a cycle: {}", describe(&self.tasks, &cycle));
            refused = ids.iter().map(|id| (*id, message.clone())).collect();
        } else if !without_room.is_empty() {
            let message = self.why_no_room();
            refused = ids.iter().map(|id| (*id, message.clone())).collect();
        }
        for (id, message) in refused {
            self.refuse(id, message);
        }
        self.unsettled.extend(ids);
        taken_in
    }

    /// The record of a key, and whether it still has to be told how to run. None when there is no room for more.
    ///
    /// A task that was refused has no way to run: it is as good as new.
    fn record(&mut self, graph_task: &GraphTask, owner: Owner) -> Option<(TaskId, bool)> {
        let Some(id) = self.tasks.id(&graph_task.key) else {
            return self.has_room().then(|| (self.insert_record(&graph_task.key, owner), true));
        };
        let task = &self.tasks[id];
        let is_known = task.run_spec.is_some() || task.replicas().is_some();
        if is_known && self.is_outdated(id, graph_task, owner) {
            self.make_blank(id);
            return Some((id, true));
        }
        if !is_known && task.blame().is_some() {
            self.release(id);
        }
        Some((id, !is_known))
    }

    /// Whether a collection that brought a task does it differently now, while nothing came of the task yet.
    fn is_outdated(&self, id: TaskId, graph_task: &GraphTask, owner: Owner) -> bool {
        let task = &self.tasks[id];
        let is_its_own = matches!(owner, Owner::Collection(_)) && task.origin == owner && task.member_of.len() <= 1;
        let is_different = task.run_spec.as_ref() != Some(&graph_task.run_spec);
        is_its_own && is_different && task.run().is_none() && task.replicas().is_none()
    }

    /// Makes a task as if nobody had ever said how to run it.
    fn make_blank(&mut self, id: TaskId) {
        if self.tasks[id].state_name() != StateName::Released {
            self.release(id);
        }
        for dependency in std::mem::take(&mut self.tasks[id].dependencies) {
            self.remove_dependent(dependency, id);
        }
        self.count_in_collections(id, |collection| _ = collection.retried.remove(&id));
        let task = &mut self.tasks[id];
        (task.missing, task.failed, task.failures) = (0, 0, 0);
    }

    pub(super) fn has_room(&self) -> bool {
        self.tasks.len() < self.config.tasks_max
    }

    pub(super) fn why_no_room(&self) -> String {
        format!("the graph does not fit: there would be more than {} tasks", self.config.tasks_max)
    }

    /// The record of a key that nobody knows and that is part of no graph: it has failed.
    pub(super) fn record_refused(&mut self, key: &TaskKey, owner: Owner, message: String) -> TaskId {
        let id = self.insert_record(key, owner);
        self.refuse(id, message);
        id
    }

    /// The record of a key whose data a Client brings itself. None when there is no room for more.
    pub(super) fn record_scattered(&mut self, key: &TaskKey, client: ClientId) -> Option<TaskId> {
        self.tasks.id(key).or_else(|| self.has_room().then(|| self.insert_record(key, Owner::Client(client))))
    }

    fn insert_record(&mut self, key: &TaskKey, owner: Owner) -> TaskId {
        let requirement = self.requirements.acquire(&Requirement::default(), &self.workers);
        let prefix = self.prefixes.intern(key);
        self.tasks.insert(Task::new(key.clone(), owner, requirement, prefix))
    }

    fn describe_task(&mut self, id: TaskId, graph_task: &GraphTask, own: Option<&Annotations>, intake: &Intake<'_>) {
        let task = &mut self.tasks[id];
        task.run_spec = Some(graph_task.run_spec.clone());
        task.origin = intake.owner;
        task.data_producer = graph_task.data_producer;
        task.actor = graph_task.actor;
        // It stands in no queue yet, so no index hangs on its priority.
        task.priority = Priority::new(0.0, intake.generation, graph_task.order);
        self.set_requirements(id, intake.requirements, own);
    }

    /// Has requirements apply to a task, and before them what was said of it alone.
    pub(super) fn set_requirements(&mut self, id: TaskId, requirements: &Requirements, own: Option<&Annotations>) {
        let task = &mut self.tasks[id];
        task.retries = own.and_then(|own| own.retries).unwrap_or(requirements.retries);
        let priority = Priority { user: user_priority(requirements, own), ..task.priority };
        let (actor, isolated) = (task.actor, task.is_suspect());
        let requirement = self.requirement_of(requirements, own, actor, isolated);
        self.set_conditions(id, priority, requirement);
    }

    /// The interned requirement of a task; counted as one more use.
    fn requirement_of(
        &mut self,
        requirements: &Requirements,
        own: Option<&Annotations>,
        actor: bool,
        isolated: bool,
    ) -> RequirementId {
        let workers = own.and_then(|own| own.workers.as_ref()).or(requirements.workers.as_ref());
        let requirement = Requirement {
            // An empty selector allows all, as none does.
            workers: workers.filter(|selector| **selector != WorkerSelector::default()).cloned(),
            allow_other_workers: own.and_then(|own| own.allow_other_workers).unwrap_or(requirements.allow_other_workers),
            resources: own.and_then(|own| own.resources.clone()).unwrap_or_else(|| requirements.resources.clone()),
            executor: own.and_then(|own| own.executor.clone()),
            actor,
            isolated,
        };
        self.requirements.acquire(&requirement, &self.workers)
    }

    /// Draws the edges of new tasks. Returns the tasks that depend on a key that nobody knows.
    fn connect(&mut self, fresh: Vec<(TaskId, Vec<TaskKey>)>) -> Vec<(TaskId, String)> {
        let mut refused = Vec::new();
        for (id, dependencies) in fresh {
            let mut seen = BTreeSet::new();
            for key in dependencies {
                let Some(dependency) = self.tasks.id(&key) else {
                    let message = format!("`{}` needs `{key}`, which is neither in its graph nor known", self.tasks[id].key);
                    refused.push((id, message));
                    break;
                };
                if seen.insert(dependency) {
                    self.add_edge(id, dependency);
                }
            }
        }
        refused
    }

    fn add_edge(&mut self, id: TaskId, dependency: TaskId) {
        let (is_missing, is_failed) = (self.tasks[dependency].replicas().is_none(), self.tasks[dependency].blame().is_some());
        self.tasks[dependency].dependents.push(id);
        let task = &mut self.tasks[id];
        task.dependencies.push(dependency);
        task.missing += u32::from(is_missing);
        task.failed += u32::from(is_failed);
    }

    /// Fails a task that was never started, for good: without its edges and without a way to run it.
    fn refuse(&mut self, id: TaskId, message: String) {
        for dependency in std::mem::take(&mut self.tasks[id].dependencies) {
            self.remove_dependent(dependency, id);
        }
        let task = &mut self.tasks[id];
        task.run_spec = None;
        task.missing = 0;
        task.failed = 0;
        self.fail(id, Blame::Own(refusal(message)));
    }
}

/// What the user gave a task; a number that is none counts as 0.
fn user_priority(requirements: &Requirements, own: Option<&Annotations>) -> f64 {
    let given = own.and_then(|own| own.priority).unwrap_or(requirements.priority);
    if Priority::is_valid_user_priority(given) { given } else { 0.0 }
}
