//! What tasks ask of a worker: each requirement held once, with its workers and its queue.

use std::collections::{BTreeMap, BTreeSet};

use crate::dask::Priority;
use crate::engine::ready_queue::ReadyQueue;
use crate::engine::task_table::TaskId;
use crate::engine::worker::{Worker, Workers};
use crate::engine::{Resources, WorkerId, WorkerSelector};

/// The place of a requirement in the `RequirementTable`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RequirementId(u32);

/// What a task asks of the worker that runs it. Tasks that ask the same share a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Requirement {
    pub(super) workers: Option<WorkerSelector>,
    /// Any running worker will do while none matches `workers`.
    pub(super) allow_other_workers: bool,
    pub(super) resources: Resources,
    pub(super) executor: Option<String>,
    pub(super) actor: bool,
    /// Workers died with these tasks: no worker runs two of them at once, so the next death tells which it was.
    pub(super) isolated: bool,
    /// The one worker that has the data of these tasks, of which no key tells: a shuffle's.
    pub(super) pinned_to: Option<WorkerId>,
}

/// A requirement in use.
#[derive(Debug)]
struct Entry {
    requirement: Requirement,
    /// How many tasks and runs refer to it; at zero the entry goes.
    users: usize,
    /// All running workers that `workers` selects and whose resources suffice when nothing else runs.
    preferred: BTreeSet<WorkerId>,
    /// With `allow_other_workers`: all running workers whose resources suffice.
    others: BTreeSet<WorkerId>,
    /// All tasks of this requirement in `Queued` and `NoWorker`.
    ready: ReadyQueue,
}

impl Entry {
    fn eligible(&self) -> &BTreeSet<WorkerId> {
        if self.preferred.is_empty() { &self.others } else { &self.preferred }
    }

    fn consider(&mut self, id: WorkerId, worker: &Worker) {
        let suffices = worker.takes_tasks() && worker.profile.resources.covers(&self.requirement.resources);
        let selected = match self.requirement.pinned_to {
            Some(pinned_to) => pinned_to == id,
            None => self.requirement.workers.as_ref().is_none_or(|selector| selector.matches(&worker.profile)),
        };
        let others = self.requirement.allow_other_workers && self.requirement.pinned_to.is_none();
        let put = |set: &mut BTreeSet<WorkerId>, belongs: bool| if belongs { set.insert(id) } else { set.remove(&id) };
        put(&mut self.preferred, suffices && selected);
        put(&mut self.others, suffices && others);
    }
}

/// All requirements in use.
#[derive(Debug, Default)]
pub(super) struct RequirementTable {
    entries: Vec<Option<Entry>>,
    ids: BTreeMap<Requirement, RequirementId>,
    /// All and only requirements that have ready tasks.
    with_ready: BTreeSet<RequirementId>,
}

impl RequirementTable {
    /// Counts one more user of a requirement.
    pub(super) fn acquire(&mut self, requirement: &Requirement, workers: &Workers) -> RequirementId {
        if let Some(&id) = self.ids.get(requirement) {
            self.retain(id);
            return id;
        }
        let mut entry = Entry {
            requirement: requirement.clone(),
            users: 1,
            preferred: BTreeSet::new(),
            others: BTreeSet::new(),
            ready: ReadyQueue::default(),
        };
        for (worker_id, worker) in workers {
            entry.consider(*worker_id, worker);
        }
        let place = self.entries.iter().position(Option::is_none).unwrap_or_else(|| {
            self.entries.push(None);
            self.entries.len() - 1
        });
        self.entries[place] = Some(entry);
        let id = RequirementId(place as u32);
        self.ids.insert(requirement.clone(), id);
        id
    }

    /// Counts one more user of a requirement in use.
    pub(super) fn retain(&mut self, id: RequirementId) {
        self.entry_mut(id).users += 1;
    }

    pub(super) fn release(&mut self, id: RequirementId) {
        let entry = self.entry_mut(id);
        entry.users -= 1;
        if entry.users == 0
            && let Some(entry) = self.entries[id.0 as usize].take()
        {
            self.ids.remove(&entry.requirement);
        }
    }

    pub(super) fn get(&self, id: RequirementId) -> &Requirement {
        &self.entry(id).requirement
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = RequirementId> {
        self.iter().map(|(id, _)| id)
    }

    fn iter(&self) -> impl Iterator<Item = (RequirementId, &Entry)> {
        self.entries.iter().enumerate().filter_map(|(place, entry)| Some((RequirementId(place as u32), entry.as_ref()?)))
    }

    /// The requirements that have ready tasks.
    pub(super) fn with_ready(&self) -> impl Iterator<Item = RequirementId> {
        self.with_ready.iter().copied()
    }

    /// The workers that may run such tasks as things are.
    pub(super) fn eligible(&self, id: RequirementId) -> &BTreeSet<WorkerId> {
        self.entry(id).eligible()
    }

    /// Whether a worker is one of those that such tasks are for.
    pub(super) fn may_run(&self, id: RequirementId, worker: WorkerId) -> bool {
        self.eligible(id).contains(&worker)
    }

    pub(super) fn has_workers(&self, id: RequirementId) -> bool {
        !self.eligible(id).is_empty()
    }

    pub(super) fn ready(&self, id: RequirementId) -> &ReadyQueue {
        &self.entry(id).ready
    }

    pub(super) fn most_urgent(&self, id: RequirementId) -> Option<(Priority, TaskId)> {
        self.entry(id).ready.first()
    }

    pub(super) fn push_ready(&mut self, id: RequirementId, priority: Priority, task: TaskId) {
        let ready = &mut self.entry_mut(id).ready;
        let is_first = ready.is_empty();
        ready.insert(priority, task);
        if is_first {
            self.with_ready.insert(id);
        }
    }

    pub(super) fn remove_ready(&mut self, id: RequirementId, priority: Priority, task: TaskId) {
        let ready = &mut self.entry_mut(id).ready;
        if ready.remove(priority, task) && ready.is_empty() {
            self.with_ready.remove(&id);
        }
    }

    /// Looks at a worker that joined or is different now. Returns the requirements that have workers now and had none,
    /// or the reverse.
    pub(super) fn worker_changed(&mut self, id: WorkerId, worker: &Worker) -> Vec<RequirementId> {
        self.update(|entry| entry.consider(id, worker))
    }

    /// Forgets a worker. Returns the requirements that are left without workers.
    pub(super) fn worker_left(&mut self, id: WorkerId) -> Vec<RequirementId> {
        self.update(|entry| {
            entry.preferred.remove(&id);
            entry.others.remove(&id);
        })
    }

    fn update(&mut self, mut change: impl FnMut(&mut Entry)) -> Vec<RequirementId> {
        let mut flipped = Vec::new();
        for (place, entry) in self.entries.iter_mut().enumerate() {
            let Some(entry) = entry else { continue };
            let before = entry.eligible().is_empty();
            change(entry);
            if entry.eligible().is_empty() != before {
                flipped.push(RequirementId(place as u32));
            }
        }
        flipped
    }

    /// For `invariants`: how many users each requirement says it has.
    pub(super) fn users(&self) -> impl Iterator<Item = (RequirementId, usize)> {
        self.iter().map(|(id, entry)| (id, entry.users))
    }

    fn entry(&self, id: RequirementId) -> &Entry {
        self.entries[id.0 as usize].as_ref().expect("a requirement in use has an entry")
    }

    fn entry_mut(&mut self, id: RequirementId) -> &mut Entry {
        self.entries[id.0 as usize].as_mut().expect("a requirement in use has an entry")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dask::WorkerAddress;
    use crate::engine::{WorkerProfile, WorkerStatus};

    fn running_worker(name: &str) -> Worker {
        let profile = WorkerProfile {
            address: WorkerAddress::new(format!("tcp://{name}:1")),
            name: name.to_owned(),
            pod: None,
            node: None,
            nthreads: 1,
            memory_limit: None,
            resources: Resources::default(),
            labels: BTreeMap::new(),
            builder: false,
        };
        let mut worker = Worker::new(profile, 1.1);
        worker.status = WorkerStatus::Running;
        worker
    }

    #[test]
    fn others_are_eligible_only_while_no_preferred_worker_is_there() {
        let mut table = RequirementTable::default();
        let selector = WorkerSelector { names: vec!["good".to_owned()], ..WorkerSelector::default() };
        let requirement = Requirement { workers: Some(selector), allow_other_workers: true, ..Requirement::default() };
        let id = table.acquire(&requirement, &Workers::default());
        assert_eq!(table.worker_changed(WorkerId(1), &running_worker("other")), [id]);
        assert_eq!(table.eligible(id), &BTreeSet::from([WorkerId(1)]));
        assert_eq!(table.worker_changed(WorkerId(2), &running_worker("good")), []);
        assert_eq!(table.eligible(id), &BTreeSet::from([WorkerId(2)]));
        assert_eq!(table.worker_left(WorkerId(2)), []);
        assert_eq!(table.worker_left(WorkerId(1)), [id]);
    }

    #[test]
    fn a_requirement_that_nobody_has_any_more_is_dropped() {
        let mut table = RequirementTable::default();
        let id = table.acquire(&Requirement::default(), &Workers::default());
        assert_eq!(table.acquire(&Requirement::default(), &Workers::default()), id);
        table.release(id);
        assert_eq!(table.ids().collect::<Vec<_>>(), [id]);
        table.release(id);
        assert_eq!(table.ids().count(), 0);
    }
}
