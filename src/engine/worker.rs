//! One worker's record.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;
use rustc_hash::FxBuildHasher;

use crate::dask::TaskKey;
use crate::engine::prefix::UNKNOWN_US;
use crate::engine::replication::Copy;
use crate::engine::requirement_table::Requirement;
use crate::engine::silence::Silence;
use crate::engine::task::Run;
use crate::engine::task_set::TaskSet;
use crate::engine::task_table::TaskId;
use crate::engine::user_priorities::UserPriorities;
use crate::engine::{Amount, Resources, RunId, WorkerId, WorkerProfile, WorkerStatus};

/// A run that was given up is over when this many heartbeats in a row do not list it: the first may be older than the
/// answer that said it goes on.
const HEARTBEATS_UNTIL_OVER: u8 = 2;
/// A worker is given work for so long beyond its slots: much longer than it takes to send more, and so short that what
/// comes meanwhile and is more urgent hardly waits.
const FED_US: u64 = 20_000;
/// The same in runs for each thread: enough that a batch of them costs little more than one.
const FED_A_THREAD_MAX: u32 = 64;
/// A worker gets more when no more than this part is left: so it gets a batch instead of one run for each that ends, and
/// runs that belong together go to the same worker.
const LOW: u64 = 4;
/// So many small results may wait to be dropped.
const UNSENT_FREES_MAX: usize = 256;

/// All workers, in the order they joined.
pub(super) type Workers = IndexMap<WorkerId, Worker, FxBuildHasher>;

/// All that is known of a worker.
#[derive(Debug)]
pub(super) struct Worker {
    pub(super) profile: WorkerProfile,
    /// How many runs it is given at once, however long they take: all threads busy, and a little more so that none waits
    /// for us.
    pub(super) slots: u32,
    pub(super) status: WorkerStatus,
    /// All and only tasks in `Memory` that it holds (`has_what`).
    pub(super) holds: TaskSet,
    /// The sum of what it holds.
    pub(super) nbytes: u64,
    /// All and only tasks in `Processing` on it.
    pub(super) processing: BTreeSet<TaskId>,
    /// Of those in `processing` that have not given their thread back.
    pub(super) under_way: UserPriorities,
    /// How many of `processing` gave their thread back.
    pub(super) seceded: u32,
    /// How many of `processing` are kept apart.
    pub(super) isolated: u32,
    /// How many of `processing` and `holds` are actors.
    pub(super) actors: u32,
    /// The sum of what `processing` is expected to take.
    pub(super) occupancy_us: u64,
    /// What `processing` and `lingering` take; resources at zero are left out.
    pub(super) used: Resources,
    /// Runs that were given up but may still go on: a worker does not stop what runs, and does not say when it ends.
    pub(super) lingering: Vec<Lingering>,
    /// How many of `lingering` may have a thread. That keeps others away while there is anywhere else to go.
    pub(super) blocked: u32,
    /// Runs that it was asked to give back and has not answered for, with the worker that ran dry if that is the reason.
    pub(super) steals: BTreeMap<RunId, Option<WorkerId>>,
    /// What its process takes, by its own account.
    pub(super) memory: u64,
    /// Whether it is being fed: from when it runs low until it has enough, or gets what there is.
    pub(super) is_being_fed: bool,
    /// Runs that it has not been told of yet: it has enough to do, so they go with its next batch. Some may have been given
    /// up since.
    pub(super) unsent: Vec<RunId>,
    /// Small results that it is to drop and was not told of yet; they go with its next batch too.
    pub(super) unsent_frees: Vec<TaskKey>,
    /// Where it stands in the indexes of workers.
    pub(super) indexed: Indexed,
    /// Whether it has changed since it was put there.
    pub(super) is_unindexed: bool,
    /// Its pod or node is going.
    pub(super) is_leaving: bool,
    /// Since it is silent.
    pub(super) silence: Option<Silence>,
    /// Copies that it was told to fetch and that have not come; all in `Memory`.
    pub(super) copying: BTreeMap<TaskId, Copy>,
}

/// A run that was given up and still holds its resources and its thread.
#[derive(Debug)]
pub(super) struct Lingering {
    key: TaskKey,
    run_id: RunId,
    pub(super) resources: Resources,
    pub(super) has_thread: bool,
    /// Whether the worker said, after it had been told to drop the run, that the run goes on.
    goes_on: bool,
    /// How many heartbeats in a row did not list it since.
    absent: u8,
}

/// What the indexes of workers know of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Indexed {
    /// Its rank, while it is open: it takes tasks and has a slot for one more.
    pub(super) rank: Option<Rank>,
    /// How many threads of an open worker have nothing to do.
    pub(super) free_threads: u32,
    pub(super) has_backlog: bool,
}

/// Where an open worker stands among others: the first can start a task first, and of equals has the lowest load, and then
/// holds least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    pub(super) wait_us: u64,
    pub(super) load: Load,
    pub(super) nbytes: u64,
    pub(super) tie_break: u64,
    pub(super) worker: WorkerId,
}

/// How busy a worker is: runs per thread, in 65536ths. The least is the first to be given more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Load(u64);

impl Worker {
    /// `saturation` is how many runs it is given for each of its threads.
    pub(super) fn new(profile: WorkerProfile, saturation: f64) -> Self {
        let nthreads = profile.nthreads.max(1);
        Self {
            profile: WorkerProfile { nthreads, ..profile },
            slots: ((saturation * f64::from(nthreads)).ceil() as u32).max(1),
            status: WorkerStatus::Init,
            holds: TaskSet::default(),
            nbytes: 0,
            processing: BTreeSet::new(),
            under_way: UserPriorities::default(),
            seceded: 0,
            isolated: 0,
            actors: 0,
            occupancy_us: 0,
            used: Resources::default(),
            lingering: Vec::new(),
            blocked: 0,
            steals: BTreeMap::new(),
            memory: 0,
            is_being_fed: true,
            unsent: Vec::new(),
            unsent_frees: Vec::new(),
            indexed: Indexed::default(),
            is_unindexed: false,
            is_leaving: false,
            silence: None,
            copying: BTreeMap::new(),
        }
    }

    /// Runs tasks at all: whether there is room is another question.
    pub(super) fn takes_tasks(&self) -> bool {
        self.status == WorkerStatus::Running && !self.profile.builder && !self.is_leaving && !self.is_silent()
    }

    /// It will close, by its own word or because its pod goes.
    pub(super) fn is_closing(&self) -> bool {
        self.is_leaving || self.status == WorkerStatus::ClosingGracefully
    }

    /// Nothing was heard of it for too long, although its connection stands.
    pub(super) fn is_silent(&self) -> bool {
        self.silence.is_some()
    }

    /// Whether what it holds will be there, as far as anybody knows.
    pub(super) fn lasts(&self) -> bool {
        matches!(self.status, WorkerStatus::Running | WorkerStatus::Paused) && !self.is_leaving && !self.is_silent()
    }

    /// How many runs want a thread.
    pub(super) fn in_flight(&self) -> u32 {
        (self.processing.len() as u32).saturating_sub(self.seceded)
    }

    pub(super) fn load(&self) -> Load {
        Load((u64::from(self.in_flight() + self.blocked) << 16) / u64::from(self.profile.nthreads))
    }

    /// How long a task that comes now would wait for a thread.
    pub(super) fn wait_us(&self) -> u64 {
        if self.free_threads() > 0 { 0 } else { self.ahead_us() / u64::from(self.profile.nthreads) }
    }

    /// What is expected to be done before a task that comes now, by all threads together. Nobody knows how long a run goes on
    /// that was given up.
    pub(super) fn ahead_us(&self) -> u64 {
        self.occupancy_us + u64::from(self.blocked) * UNKNOWN_US
    }

    pub(super) fn has_slot(&self) -> bool {
        self.in_flight() < self.slots
    }

    /// Whether it can be given more without having too much, as far as durations are known.
    pub(super) fn can_be_fed(&self) -> bool {
        self.is_short_with(self.in_flight(), 1)
    }

    /// Whether it would soon be through with all that it was told of.
    pub(super) fn runs_low(&self) -> bool {
        let sent = self.in_flight().saturating_sub(self.unsent.len() as u32);
        sent < self.slots || self.is_short_with(sent, LOW)
    }

    /// Whether there will be something to tell it before long, so that what does not matter can wait for that.
    pub(super) fn is_told_soon(&self) -> bool {
        !self.is_being_fed
            && self.occupancy_us <= FED_US * u64::from(self.profile.nthreads)
            && self.unsent_frees.len() < UNSENT_FREES_MAX
    }

    /// Whether so many of its runs are less than this part of what it may have.
    fn is_short_with(&self, runs: u32, part: u64) -> bool {
        let (nthreads, runs) = (u64::from(self.profile.nthreads), u64::from(runs));
        let work_us = self.occupancy_us / u64::from(self.in_flight().max(1)) * runs;
        runs * part < nthreads * u64::from(FED_A_THREAD_MAX) && work_us.saturating_mul(part) < FED_US * nthreads
    }

    /// Whether it takes tasks and is to be given more now.
    pub(super) fn is_open(&self) -> bool {
        self.takes_tasks() && (self.has_slot() || (self.is_being_fed && self.can_be_fed()))
    }

    /// Whether it has more runs than threads, and can be asked for them.
    pub(super) fn has_backlog(&self) -> bool {
        let is_full = self.in_flight() > 0 && self.in_flight() + self.blocked > self.profile.nthreads;
        is_full && !self.is_silent()
    }

    /// Whether no thread has anything to do.
    pub(super) fn is_dry(&self) -> bool {
        self.in_flight() + self.blocked == 0
    }

    /// How many threads have nothing to do.
    pub(super) fn free_threads(&self) -> u32 {
        self.profile.nthreads.saturating_sub(self.in_flight() + self.blocked)
    }

    pub(super) fn rank(&self, id: WorkerId, tie_break: u64) -> Rank {
        Rank { wait_us: self.wait_us(), load: self.load(), nbytes: self.nbytes, tie_break, worker: id }
    }

    /// Whether what a task needs is free, apart from threads.
    pub(super) fn has_room_for(&self, requirement: &Requirement) -> bool {
        self.has_free(&requirement.resources) && !(requirement.isolated && self.isolated > 0)
    }

    pub(super) fn has_free(&self, resources: &Resources) -> bool {
        self.lacks(resources).is_zero()
    }

    /// How much would have to become free, of all resources together.
    pub(super) fn lacks(&self, resources: &Resources) -> Amount {
        resources.iter().filter(|(_, amount)| !amount.is_zero()).fold(Amount::default(), |sum, (name, amount)| {
            let wanted = self.used.get(name).saturating_add(amount);
            sum.saturating_add(wanted.saturating_sub(self.profile.resources.get(name)))
        })
    }

    pub(super) fn take_resources(&mut self, resources: &Resources) {
        for (name, amount) in resources.iter().filter(|(_, amount)| !amount.is_zero()) {
            match self.used.0.get_mut(name) {
                Some(used) => *used = used.saturating_add(amount),
                None => _ = self.used.0.insert(name.to_owned(), amount),
            }
        }
    }

    pub(super) fn give_back_resources(&mut self, resources: &Resources) {
        for (name, amount) in resources.iter() {
            let Some(used) = self.used.0.get_mut(name) else { continue };
            *used = used.saturating_sub(amount);
            if used.is_zero() {
                self.used.0.remove(name);
            }
        }
    }

    /// Keeps holding what a run takes that was given up before it ended. Somebody has to ask what became of it.
    pub(super) fn linger(&mut self, key: TaskKey, run: &Run, resources: Resources) {
        self.take_resources(&resources);
        self.blocked += u32::from(!run.seceded);
        self.lingering.push(Lingering {
            key,
            run_id: run.run_id,
            resources,
            has_thread: !run.seceded,
            goes_on: false,
            absent: 0,
        });
    }

    /// The same for a run of an engine before this one: the worker has said that it goes on.
    pub(super) fn linger_on(&mut self, key: TaskKey, run_id: RunId, resources: Resources, has_thread: bool) {
        self.take_resources(&resources);
        self.blocked += u32::from(has_thread);
        self.lingering.push(Lingering { key, run_id, resources, has_thread, goes_on: true, absent: 0 });
    }

    /// The worker said that a run ended, or that it does not know of it; whether that run had been given up.
    pub(super) fn run_ended(&mut self, run_id: RunId) -> bool {
        self.settle_lingering(|lingering| lingering.run_id == run_id)
    }

    /// The worker said that a run goes on although it was told to drop it. Only heartbeats will tell when it ends.
    pub(super) fn run_goes_on(&mut self, run_id: RunId) {
        for lingering in self.lingering.iter_mut().filter(|lingering| lingering.run_id == run_id) {
            lingering.goes_on = true;
        }
    }

    /// Compares the runs that were given up with what the worker says it is running; whether one is over.
    pub(super) fn heard_executing(&mut self, executing: &[TaskKey]) -> bool {
        self.settle_lingering(|lingering| {
            let is_absent = lingering.goes_on && !executing.contains(&lingering.key);
            lingering.absent = if is_absent { lingering.absent + 1 } else { 0 };
            lingering.absent >= HEARTBEATS_UNTIL_OVER
        })
    }

    fn settle_lingering(&mut self, is_over: impl FnMut(&mut Lingering) -> bool) -> bool {
        let over: Vec<Lingering> = self.lingering.extract_if(.., is_over).collect();
        let are_over = !over.is_empty();
        for lingering in over {
            self.give_back_resources(&lingering.resources);
            self.blocked -= u32::from(lingering.has_thread);
        }
        are_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dask::WorkerAddress;
    use crate::engine::Millis;
    use crate::engine::requirement_table::RequirementTable;

    fn worker(nthreads: u32, gpus: f64) -> Worker {
        saturated(nthreads, gpus, 1.1)
    }

    fn saturated(nthreads: u32, gpus: f64, saturation: f64) -> Worker {
        let profile = WorkerProfile {
            address: WorkerAddress::new("tcp://w:1"),
            name: "w".to_owned(),
            pod: None,
            node: None,
            nthreads,
            memory_limit: None,
            resources: gpu(gpus),
            labels: BTreeMap::new(),
            builder: false,
        };
        Worker::new(profile, saturation)
    }

    fn gpu(amount: f64) -> Resources {
        Resources(BTreeMap::from([("GPU".to_owned(), Amount::from_f64(amount).unwrap())]))
    }

    #[test]
    fn a_worker_gets_its_threads_and_a_little_more() {
        for (nthreads, saturation, slots) in [(1, 1.1, 2), (2, 1.1, 3), (10, 1.1, 11), (4, 1.0, 4), (4, 0.1, 1), (0, 1.0, 1)] {
            assert_eq!(saturated(nthreads, 0.0, saturation).slots, slots, "{nthreads} × {saturation}");
        }
        assert_eq!(saturated(1, 0.0, f64::INFINITY).slots, u32::MAX);
    }

    #[test]
    fn fractions_of_a_resource_fill_it_exactly() {
        let mut worker = worker(8, 1.0);
        let requirement = Requirement { resources: gpu(0.1), ..Requirement::default() };
        for _ in 0..10 {
            assert!(worker.has_room_for(&requirement));
            worker.take_resources(&requirement.resources);
        }
        assert!(!worker.has_room_for(&requirement));
        worker.give_back_resources(&gpu(1.0));
        assert_eq!(worker.used, Resources::default());
    }

    #[test]
    fn a_run_that_goes_on_is_over_when_two_heartbeats_do_not_list_it() {
        let (mut worker, key, run_id) = (worker(1, 1.0), TaskKey::from_text("a"), RunId(1));
        let run = Run {
            worker: WorkerId(1),
            run_id,
            since: Millis(0),
            expected_us: 0,
            requirement: RequirementTable::default().acquire(&Requirement::default(), &Workers::default()),
            seceded: false,
            executing: true,
        };
        worker.linger(key.clone(), &run, gpu(1.0));
        assert!(!worker.is_dry());
        worker.heard_executing(&[]);
        worker.heard_executing(&[]);
        assert_eq!(worker.used, gpu(1.0), "the worker may not even have got the task");
        worker.run_goes_on(run_id);
        worker.heard_executing(&[]);
        worker.heard_executing(&[key]);
        worker.heard_executing(&[]);
        assert_eq!(worker.used, gpu(1.0));
        assert!(worker.heard_executing(&[]));
        assert_eq!(worker.used, Resources::default());
        assert!(worker.is_dry());
    }
}
