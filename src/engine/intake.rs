//! Takes a graph in.

use std::ops::Range;
use std::sync::Arc;
use std::vec;

use rustc_hash::FxHashMap;

use crate::dask::{Priority, TaskKey};
use crate::engine::cycle::{describe, find_cycle};
use crate::engine::owner::Owner;
use crate::engine::requirement_table::{Requirement, RequirementId};
use crate::engine::rules::refusal;
use crate::engine::task::{Blame, StateName, Task};
use crate::engine::task_set::TaskSet;
use crate::engine::task_table::TaskId;
use crate::engine::{Annotations, ClientId, Engine, Exception, Graph, GraphTask, Requirements, WorkerSelector};

/// A graph that is taken in: on whose behalf, under which conditions, and what is left of it.
#[derive(Debug)]
pub(super) struct Intake {
    pub(super) owner: Owner,
    pub(super) requirements: Requirements,
    pub(super) generation: f64,
    /// Without its tasks and annotations.
    graph: Graph,
    tasks: vec::IntoIter<GraphTask>,
    /// How many tasks it had.
    size: usize,
    annotations: Vec<Arc<Annotations>>,
    /// The tasks taken in so far, by the place of their keys.
    ids: Vec<Option<TaskId>>,
    /// Whether each task comes after all that it reads, as far as these are in the graph.
    is_ordered: bool,
    /// Of each key whether the graph has a task for it.
    is_own: Vec<bool>,
    /// Whether tasks were left out because there was no room.
    has_left_out: bool,
}

impl Intake {
    pub(super) fn new(owner: Owner, requirements: Requirements, generation: f64, mut graph: Graph) -> Self {
        let tasks = std::mem::take(&mut graph.tasks);
        let annotations = std::mem::take(&mut graph.annotations).into_iter().map(Arc::new).collect();
        let ids = vec![None; graph.keys.len()];
        // In one pass, since the tasks of a large graph are in no cache.
        let mut is_own = vec![false; graph.keys.len()];
        let mut read_early: Vec<u32> = Vec::new();
        for task in &tasks {
            let reads = graph.dependencies(&task.dependencies);
            read_early.extend(reads.iter().filter(|place| !is_own[**place as usize]));
            is_own[task.key as usize] = true;
        }
        // Those that are not of the graph never come.
        let is_ordered = read_early.iter().all(|place| !is_own[*place as usize]);
        Self {
            owner,
            requirements,
            generation,
            graph,
            size: tasks.len(),
            tasks: tasks.into_iter(),
            annotations,
            ids,
            is_ordered,
            is_own,
            has_left_out: false,
        }
    }

    /// Lets go of so many keys, once the graph is taken in: of a million it takes tens of milliseconds. Whether some are left.
    pub(super) fn drop_keys(&mut self, count: usize) -> bool {
        let left = self.graph.keys.len().saturating_sub(count);
        self.graph.keys.truncate(left);
        left > 0
    }

    /// How many tasks are left.
    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    pub(super) fn is_ordered(&self) -> bool {
        self.is_ordered
    }

    /// Whether nothing was taken in so far.
    pub(super) fn is_untouched(&self) -> bool {
        self.len() == self.size
    }

    pub(super) fn is_own(&self, place: u32) -> bool {
        self.is_own[place as usize]
    }

    pub(super) fn has_left_out(&self) -> bool {
        self.has_left_out
    }

    pub(super) fn key(&self, place: u32) -> &TaskKey {
        &self.graph.keys[place as usize]
    }

    /// The task of a key, once it is taken in.
    pub(super) fn id(&self, place: u32) -> Option<TaskId> {
        self.ids[place as usize]
    }

    /// How many keys it names.
    pub(super) fn places(&self) -> u32 {
        self.ids.len() as u32
    }

    /// The keys that other graphs have to bring.
    pub(super) fn foreign_keys(&self) -> impl Iterator<Item = &TaskKey> {
        self.graph.keys.iter().zip(&self.is_own).filter(|(_, is_own)| !**is_own).map(|(key, _)| key)
    }

    /// For `invariants`: the tasks taken in so far, with their keys.
    pub(super) fn taken_in(&self) -> impl Iterator<Item = (&TaskKey, TaskId)> {
        self.graph.keys.iter().zip(&self.ids).filter_map(|(key, id)| Some((key, (*id)?)))
    }
}

/// Under which conditions a task runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conditions {
    /// What the user gave.
    pub(super) user_priority: f64,
    pub(super) retries: u32,
    pub(super) requirement: RequirementId,
}

/// What a graph has to say of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum News {
    /// All: nobody named it before.
    New,
    /// How it is run: what there was of it is of no use.
    Again,
    /// Nothing.
    Known,
}

/// A task of the graph, with the place of its key and with what was said of it.
pub(super) struct TakenIn {
    pub(super) id: TaskId,
    pub(super) place: u32,
    pub(super) annotations: Option<Arc<Annotations>>,
}

impl Engine {
    /// Adds the next so many tasks of a graph that are not known yet; the others keep what they have, as in Dask. Only what a
    /// collection brought itself and has neither run nor started is told anew how to run: somebody edited it because it
    /// failed.
    ///
    /// Nothing is limbo: a task that depends on a key nobody knows is refused, which fails it; so is every new task of a
    /// graph with a cycle or too many tasks. A task that was refused can be brought again by a later graph.
    pub(super) fn take_in_tasks(&mut self, intake: &mut Intake, count: usize) -> Vec<TakenIn> {
        let count = count.min(intake.tasks.len());
        let mut taken_in = Vec::with_capacity(count);
        let mut fresh = Vec::with_capacity(count);
        let mut without_room = false;
        let mut known_conditions: FxHashMap<_, Conditions> = FxHashMap::default();
        self.tasks.expect(intake.tasks.len());
        for _ in 0..count {
            let Some(graph_task) = intake.tasks.next() else { break };
            let own = graph_task.annotations.and_then(|index| intake.annotations.get(index as usize));
            // Most tasks of a graph are under the same.
            let mut conditions_of = |engine: &mut Self, is_suspect: bool| {
                let kind = (graph_task.annotations, graph_task.actor, is_suspect);
                let known = known_conditions.entry(kind);
                *known.or_insert_with(|| engine.conditions(&intake.requirements, own.map(|own| &**own), kind.1, kind.2))
            };
            let conditions = conditions_of(self, false);
            let Some((id, news)) = self.record(&intake.graph, &graph_task, intake.owner, &conditions) else {
                without_room = true;
                continue;
            };
            let place = graph_task.key;
            intake.ids[place as usize] = Some(id);
            taken_in.push(TakenIn { id, place, annotations: own.cloned() });
            if news == News::Known {
                continue;
            }
            fresh.push((id, graph_task.dependencies.clone()));
            if news == News::Again {
                let conditions = conditions_of(self, self.tasks[id].is_suspect());
                self.requirements.retain(conditions.requirement);
                self.set_conditions(id, conditions);
            }
            self.describe_task(id, graph_task, intake);
        }
        for conditions in known_conditions.values() {
            self.requirements.release(conditions.requirement);
        }
        // Tasks known before depend on one of these only if it was refused before, or is done differently now.
        let has_old_dependents = fresh.iter().any(|(id, _)| !self.tasks[*id].dependents.is_empty());
        let (mut refused, leads_forward) = self.connect(&fresh, &intake.graph, &intake.ids);
        let ids: Vec<TaskId> = fresh.into_iter().map(|(id, _)| id).collect();
        if without_room {
            let message = self.why_no_room();
            refused = ids.iter().map(|id| (*id, Exception::Refused { message: message.clone() })).collect();
            intake.has_left_out = true;
        }
        if (leads_forward || has_old_dependents)
            && let Some(cycle) = self.find_cycle_among(&ids, has_old_dependents)
        {
            let message = format!("the graph has a cycle: {}", describe(&self.tasks, &cycle));
            refused = ids.iter().map(|id| (*id, Exception::Refused { message: message.clone() })).collect();
        }
        for (id, why) in refused {
            self.refuse(id, why);
        }
        self.unsettled.extend(taken_in.iter().map(|taken| taken.id));
        taken_in
    }

    fn find_cycle_among(&self, fresh: &[TaskId], has_old_dependents: bool) -> Option<Vec<TaskId>> {
        let fresh_ids: TaskSet = fresh.iter().copied().collect();
        find_cycle(&self.tasks, fresh, |id| has_old_dependents || fresh_ids.contains(id))
    }

    /// The record of a key, and whether it still has to be told how to run. None when there is no room for more.
    ///
    /// A task that was refused has no way to run: it is as good as new.
    fn record(&mut self, graph: &Graph, graph_task: &GraphTask, owner: Owner, conditions: &Conditions) -> Option<(TaskId, News)> {
        let key = graph.key(graph_task);
        let id = if self.has_room() {
            let (id, is_new) = self.insert_record(key, owner, conditions.requirement);
            if is_new {
                (self.tasks[id].priority.user, self.tasks[id].retries) = (conditions.user_priority, conditions.retries);
                return Some((id, News::New));
            }
            id
        } else {
            self.tasks.id(key)?
        };
        let task = &self.tasks[id];
        let is_known = task.run_spec.is_some() || task.replicas().is_some();
        if is_known && self.is_outdated(id, graph, graph_task, owner) {
            self.make_blank(id);
            return Some((id, News::Again));
        }
        if !is_known && task.blame().is_some() {
            self.release(id);
        }
        Some((id, if is_known { News::Known } else { News::Again }))
    }

    /// Whether a collection that brought a task does it differently now, while nothing came of the task yet.
    fn is_outdated(&self, id: TaskId, graph: &Graph, graph_task: &GraphTask, owner: Owner) -> bool {
        let task = &self.tasks[id];
        let is_its_own = matches!(owner, Owner::Collection(_)) && task.origin == owner && task.member_of.len() <= 1;
        // A run spec numbers its dependencies: it may be the same with others.
        let needs = || task.dependencies.iter().map(|dependency| &self.tasks[*dependency].key);
        let needs_now = || graph.dependencies(&graph_task.dependencies).iter().map(|place| &graph.keys[*place as usize]);
        let is_different = || task.run_spec.as_ref() != Some(&graph_task.run_spec) || needs().ne(needs_now());
        is_its_own && task.run().is_none() && task.replicas().is_none() && is_different()
    }

    /// Makes a task as if nobody had ever said how to run it.
    fn make_blank(&mut self, id: TaskId) {
        if self.tasks[id].state_name() != StateName::Released {
            self.release(id);
        }
        for dependency in std::mem::take(&mut self.tasks[id].dependencies) {
            self.remove_dependent(dependency, id);
        }
        self.count_in_collections(id, |collection| _ = collection.retried.remove(id));
        let task = &mut self.tasks[id];
        (task.missing, task.failed, task.failures) = (0, 0, 0);
    }

    pub(super) fn has_room(&self) -> bool {
        self.tasks.len() < self.config.tasks_max.min(TaskId::COUNT)
    }

    pub(super) fn why_no_room(&self) -> String {
        format!("the graph does not fit: there would be more than {} tasks", self.config.tasks_max)
    }

    /// The record of a key that nobody knows and that is part of no graph: it has failed.
    pub(super) fn record_refused(&mut self, key: &TaskKey, owner: Owner, message: String) -> TaskId {
        let id = self.record_plain(key, owner);
        self.refuse(id, Exception::Refused { message });
        id
    }

    /// The record of a key whose data a Client brings itself. None when there is no room for more.
    pub(super) fn record_scattered(&mut self, key: &TaskKey, client: ClientId) -> Option<TaskId> {
        self.tasks.id(key).or_else(|| self.has_room().then(|| self.record_plain(key, Owner::Client(client))))
    }

    /// The record of a key that no graph says anything of.
    fn record_plain(&mut self, key: &TaskKey, owner: Owner) -> TaskId {
        let requirement = self.requirements.acquire(&Requirement::default(), &self.workers);
        let (id, _) = self.insert_record(key, owner, requirement);
        self.requirements.release(requirement);
        id
    }

    /// The record of a key, and whether it is new.
    fn insert_record(&mut self, key: &TaskKey, owner: Owner, requirement: RequirementId) -> (TaskId, bool) {
        let (requirements, prefixes) = (&mut self.requirements, &mut self.prefixes);
        self.tasks.id_or_insert(key, || {
            requirements.retain(requirement);
            Task::new(key.clone(), owner, requirement, prefixes.intern(key))
        })
    }

    fn describe_task(&mut self, id: TaskId, graph_task: GraphTask, intake: &Intake) {
        let task = &mut self.tasks[id];
        task.run_spec = Some(graph_task.run_spec);
        task.origin = intake.owner;
        task.data_producer = graph_task.data_producer;
        task.actor = graph_task.actor;
        // It stands in no queue yet, so no index hangs on its priority.
        task.priority = Priority { generation: intake.generation, order: graph_task.order, ..task.priority };
    }

    /// Has requirements apply to a task, and before them what was said of it alone.
    pub(super) fn set_requirements(&mut self, id: TaskId, requirements: &Requirements, own: Option<&Annotations>) {
        let (actor, isolated) = (self.tasks[id].actor, self.tasks[id].is_suspect());
        let pinned_to = self.requirements.get(self.tasks[id].requirement).pinned_to;
        let conditions = self.conditions(requirements, own, actor, isolated);
        self.set_conditions(id, conditions);
        self.pin(id, pinned_to);
    }

    /// What requirements, and before them what was said of a task alone, come to. Counts as one more use of the requirement.
    fn conditions(&mut self, requirements: &Requirements, own: Option<&Annotations>, actor: bool, isolated: bool) -> Conditions {
        let workers = own.and_then(|own| own.workers.as_ref()).or(requirements.workers.as_ref());
        let requirement = Requirement {
            // An empty selector allows all, as none does.
            workers: workers.filter(|selector| **selector != WorkerSelector::default()).cloned(),
            allow_other_workers: own.and_then(|own| own.allow_other_workers).unwrap_or(requirements.allow_other_workers),
            resources: own.and_then(|own| own.resources.clone()).unwrap_or_else(|| requirements.resources.clone()),
            executor: own.and_then(|own| own.executor.clone()),
            actor,
            isolated,
            pinned_to: None,
        };
        Conditions {
            user_priority: user_priority(requirements, own),
            retries: own.and_then(|own| own.retries).unwrap_or(requirements.retries),
            requirement: self.requirements.acquire(&requirement, &self.workers),
        }
    }

    /// Draws the edges of new tasks. Returns the tasks that depend on a key that nobody knows, and whether one may depend on
    /// itself or on a later one: otherwise there is no cycle.
    fn connect(
        &mut self,
        fresh: &[(TaskId, Range<u32>)],
        graph: &Graph,
        ids: &[Option<TaskId>],
    ) -> (Vec<(TaskId, Exception)>, bool) {
        let mut refused = Vec::new();
        // Mostly they are, and then what is later has a higher id.
        let mut leads_forward = !fresh.is_sorted_by_key(|(id, _)| *id);
        for (id, dependencies) in fresh {
            for place in graph.dependencies(dependencies) {
                let key = &graph.keys[*place as usize];
                let Some(dependency) = ids[*place as usize].or_else(|| self.tasks.id(key)) else {
                    let message = format!("`{}` needs `{key}`, which is neither in its graph nor known", self.tasks[*id].key);
                    refused.push((*id, Exception::LostDependencies { message }));
                    break;
                };
                leads_forward |= dependency >= *id;
                self.add_edge(*id, dependency);
            }
        }
        (refused, leads_forward)
    }

    fn add_edge(&mut self, id: TaskId, dependency: TaskId) {
        let read = &mut self.tasks[dependency];
        if !read.dependents.push(id) {
            return;
        }
        let (is_missing, is_failed) = (!read.is_within_reach(), read.blame().is_some());
        let task = &mut self.tasks[id];
        task.dependencies.push(dependency);
        task.missing += u32::from(is_missing);
        task.failed += u32::from(is_failed);
    }

    /// Fails a task that was never started, for good: without its edges and without a way to run it.
    fn refuse(&mut self, id: TaskId, why: Exception) {
        for dependency in std::mem::take(&mut self.tasks[id].dependencies) {
            self.remove_dependent(dependency, id);
        }
        let task = &mut self.tasks[id];
        task.run_spec = None;
        task.missing = 0;
        task.failed = 0;
        let fault = refusal(self.tasks[id].key.clone(), why);
        self.fail(id, Blame::Own(fault));
    }
}

/// What the user gave a task; a number that is none counts as 0.
fn user_priority(requirements: &Requirements, own: Option<&Annotations>) -> f64 {
    let given = own.and_then(|own| own.priority).unwrap_or(requirements.priority);
    if Priority::is_valid_user_priority(given) { given } else { 0.0 }
}
