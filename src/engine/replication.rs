//! Keeps several copies of outputs, where a collection asks for them.
//!
//! Copies are fetched by workers from one another, behind all that their tasks need and a few at a time. They go to other
//! nodes as long as there are some, and only where the output's tasks may run. A copy that is lost is made again; what is on
//! a worker that is closing or silent does not count. `reduction` leaves them alone.

use std::collections::{BTreeMap, BTreeSet};

use crate::dask::{TaskKey, WorkerAddress};
use crate::engine::owner::Owner;
use crate::engine::task::Task;
use crate::engine::task_table::TaskId;
use crate::engine::worker::Worker;
use crate::engine::{CollectionId, Engine, Instruction, Millis, WorkerId};

/// A worker fetches so many copies at a time,
const COPIES_A_WORKER_MAX: usize = 8;
/// and no more bytes than these, or one copy.
const NBYTES_A_WORKER_MAX: u64 = 256 << 20;
/// A copy that has not come in this time is ordered again, perhaps elsewhere.
const PATIENCE_MS: u64 = 30_000;
/// So many results are looked at before something else gets its turn.
const LOOKS_MAX: usize = 256;

/// A copy that a worker was told to fetch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Copy {
    since: Millis,
    nbytes: u64,
}

/// What a worker is to fetch, as an instruction has it.
type Orders = BTreeMap<WorkerId, Vec<(TaskKey, u64, Vec<WorkerAddress>)>>;

/// What came of looking for a worker that takes a copy.
enum Taker {
    Found(WorkerId),
    /// Those that could have no room at present.
    Later,
    Nobody,
}

impl Engine {
    /// How many workers are to hold a result.
    pub(super) fn copies_wanted(&self, task: &Task) -> usize {
        if self.replicating.is_empty() || task.actor {
            return 1;
        }
        let of_owner = |owner: &Owner| match owner {
            Owner::Collection(id) => self.collections.get(id).map(|collection| collection.requirements.replicas as usize),
            Owner::Client(_) => None,
        };
        task.wanted_by.iter().filter_map(of_owner).max().unwrap_or(1)
    }

    /// Follows up on a collection that wants another number of copies, or is gone.
    pub(super) fn replicas_changed(&mut self, id: CollectionId) {
        let wanted = self.collections.get(&id).filter(|collection| collection.requirements.replicas > 1);
        let is_known = if wanted.is_some() { self.replicating.insert(id) } else { !self.replicating.remove(&id) };
        if wanted.is_none() && is_known {
            return;
        }
        let outputs = self.collections.get(&id).map_or(&[][..], |collection| &collection.outputs);
        for key in outputs.iter().flat_map(|output| &output.keys).copied().collect::<Vec<_>>() {
            self.index_replicated(key);
            self.consider_copies(key);
        }
    }

    /// Has a result be looked at whose copies may be too few.
    pub(super) fn consider_copies(&mut self, id: TaskId) {
        if !self.replicating.is_empty() {
            self.to_copy.push_back(id);
        }
    }

    /// Workers may hold copies now that could not, or the reverse.
    pub(super) fn consider_all_copies(&mut self) {
        self.reconsiders_copies = !self.replicating.is_empty();
    }

    /// Has workers fetch the copies that are missing, as far as they have time for it.
    pub(super) fn replicate(&mut self) {
        self.expire_copies();
        if std::mem::take(&mut self.reconsiders_copies) {
            let outputs = self.replicating.iter().filter_map(|id| self.collections.get(id)).flat_map(|one| &one.outputs);
            self.to_copy = outputs.flat_map(|output| &output.keys).copied().collect();
        }
        self.copies_go_on_at = None;
        // Whoever comes back may bring some.
        if self.to_copy.is_empty() || self.holds {
            return;
        }
        let takers: Vec<WorkerId> = self.workers.iter().filter(|(_, worker)| worker.takes_tasks()).map(|(id, _)| *id).collect();
        // Until one of them has fetched what it fetches, looking at results leads nowhere.
        if !takers.is_empty() && takers.iter().all(|taker| is_full(&self.workers[taker])) {
            return;
        }
        let mut orders = Orders::new();
        for _ in 0..LOOKS_MAX.min(self.to_copy.len()) {
            let Some(id) = self.to_copy.pop_front() else { break };
            while self.lacks_copies(id) {
                match self.taker_of(id, &takers) {
                    Taker::Found(worker) => self.order_copy(id, worker, &mut orders),
                    Taker::Later => {
                        self.to_copy.push_back(id);
                        break;
                    }
                    Taker::Nobody => break,
                }
            }
        }
        if !orders.is_empty() && !self.to_copy.is_empty() {
            self.copies_go_on_at = Some(self.now);
        }
        for (worker, replicas) in orders {
            self.send_unsent_frees(worker);
            self.out.push(Instruction::AcquireReplicas { worker, replicas });
        }
    }

    /// When to look again although nothing happens.
    pub(super) fn copies_due_at(&self) -> Option<Millis> {
        [self.copies_go_on_at, self.copies_expire_at].into_iter().flatten().min()
    }

    /// Whether a result is there, and on fewer workers or fewer nodes than it should be. Where no other node takes it, a
    /// second copy on the same node is better than none.
    fn lacks_copies(&self, id: TaskId) -> bool {
        let Some(task) = self.tasks.get(id) else { return false };
        let wanted = self.copies_wanted(task);
        if wanted <= 1 || !task.is_within_reach() {
            return false;
        }
        self.keepers(id).count() < wanted || self.nodes_of_keepers(id).len() < wanted
    }

    /// Who holds a result for good, or fetches it.
    fn keepers(&self, id: TaskId) -> impl Iterator<Item = &Worker> {
        let holders = self.tasks[id].holders().iter().map(|holder| &self.workers[holder]).filter(|worker| worker.lasts());
        holders.chain(self.workers.values().filter(move |worker| worker.copying.contains_key(&id)))
    }

    fn nodes_of_keepers(&self, id: TaskId) -> BTreeSet<&str> {
        self.keepers(id).map(|worker| worker.profile.node()).collect()
    }

    fn taker_of(&self, id: TaskId, takers: &[WorkerId]) -> Taker {
        let task = &self.tasks[id];
        let requirement = self.requirements.get(task.requirement);
        let may_hold = |worker: &Worker| {
            let selector = requirement.workers.as_ref().filter(|_| !requirement.allow_other_workers);
            selector.is_none_or(|selector| selector.matches(&worker.profile))
        };
        let nodes = self.nodes_of_keepers(id);
        let is_elsewhere = |worker: &Worker| !nodes.contains(worker.profile.node());
        let candidates = takers
            .iter()
            .map(|taker| (*taker, &self.workers[taker]))
            .filter(|(taker, worker)| !task.holders().contains(taker) && !worker.copying.contains_key(&id) && may_hold(worker));
        let candidates: Vec<(WorkerId, &Worker)> = candidates.collect();
        let has_elsewhere = candidates.iter().any(|(_, worker)| is_elsewhere(worker));
        if !has_elsewhere && self.keepers(id).count() >= self.copies_wanted(task) {
            return Taker::Nobody;
        }
        let with_room = candidates.iter().filter(|(_, worker)| is_elsewhere(worker) == has_elsewhere && has_room(worker, task));
        match with_room.min_by_key(|(id, worker)| (worker.nbytes + in_transit(worker), self.tie_break(*id))) {
            Some((taker, _)) => Taker::Found(*taker),
            None if candidates.is_empty() => Taker::Nobody,
            None => Taker::Later,
        }
    }

    fn order_copy(&mut self, id: TaskId, worker: WorkerId, orders: &mut Orders) {
        let task = &self.tasks[id];
        let (key, nbytes) = (task.key.clone(), task.nbytes());
        let sources = self.addresses(&self.speaking_holders(id));
        self.workers[&worker].copying.insert(id, Copy { since: self.now, nbytes });
        self.copies_expire_at.get_or_insert(Millis(self.now.0 + PATIENCE_MS));
        orders.entry(worker).or_default().push((key, nbytes, sources));
    }

    /// A worker has fetched a copy, or will not.
    pub(super) fn copy_ended(&mut self, id: TaskId, worker: WorkerId) {
        if self.workers.get_mut(&worker).is_some_and(|worker| worker.copying.remove(&id).is_some()) {
            self.consider_copies(id);
            self.forget_expiry();
        }
    }

    /// A result is gone: so are the copies that were on their way.
    pub(super) fn copies_ended(&mut self, id: TaskId) {
        if self.copies_expire_at.is_some() {
            self.workers.values_mut().for_each(|worker| _ = worker.copying.remove(&id));
            self.forget_expiry();
        }
    }

    /// Without copies on their way there is none to be given up.
    fn forget_expiry(&mut self) {
        if self.workers.values().all(|worker| worker.copying.is_empty()) {
            self.copies_expire_at = None;
        }
    }

    fn expire_copies(&mut self) {
        if self.copies_expire_at.is_none_or(|at| at > self.now) {
            return;
        }
        let oldest = Millis(self.now.0.saturating_sub(PATIENCE_MS));
        let mut next: Option<Millis> = None;
        for worker in self.workers.values_mut() {
            self.to_copy.extend(worker.copying.extract_if(.., |_, copy| copy.since <= oldest).map(|(id, _)| id));
            next = next.into_iter().chain(worker.copying.values().map(|copy| copy.since)).min();
        }
        self.copies_expire_at = next.map(|since| Millis(since.0 + PATIENCE_MS));
    }
}

fn in_transit(worker: &Worker) -> u64 {
    worker.copying.values().map(|copy| copy.nbytes).sum()
}

fn has_room(worker: &Worker, task: &Task) -> bool {
    let fits = worker.copying.is_empty() || in_transit(worker) + task.nbytes() <= NBYTES_A_WORKER_MAX;
    worker.copying.len() < COPIES_A_WORKER_MAX && fits
}

/// Whether it has room for no copy, however small.
fn is_full(worker: &Worker) -> bool {
    worker.copying.len() >= COPIES_A_WORKER_MAX || in_transit(worker) > NBYTES_A_WORKER_MAX
}
