//! One task's record.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::dask::{Priority, RunSpec, TaskKey};
use crate::engine::dependents::Dependents;
use crate::engine::owner::Owner;
use crate::engine::prefix::PrefixId;
use crate::engine::requirement_table::RequirementId;
use crate::engine::task_table::TaskList;
use crate::engine::value_types::TypeId;
use crate::engine::{CollectionId, Failure, Millis, RunId, WorkerId};

/// All that is known of a task. A million of these exist, so its size is asserted below.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) key: TaskKey,
    /// `None` when the task cannot be run: scattered data, or a task that was refused.
    pub(super) run_spec: Option<RunSpec>,
    state: TaskState,
    pub(super) dependencies: TaskList,
    pub(super) dependents: Dependents,
    /// How many dependencies are not in `Memory`, or only on workers that are silent.
    pub(super) missing: u32,
    /// How many dependencies are `Erred`.
    pub(super) failed: u32,
    /// How many dependents are on their way and so need this task (`waiters` in Dask).
    pub(super) waiters: u32,
    /// Who asked for the result itself.
    pub(super) wanted_by: SmallVec<[Owner; 1]>,
    /// The collections whose graph has this task: it is remembered as long as one of them exists.
    pub(super) member_of: SmallVec<[CollectionId; 2]>,
    /// Whose graph brought the task and so says under which conditions it runs.
    pub(super) origin: Owner,
    pub(super) priority: Priority,
    pub(super) requirement: RequirementId,
    pub(super) prefix: PrefixId,
    /// How many runs may fail before the task does.
    pub(super) retries: u32,
    /// How many runs failed.
    pub(super) failures: u32,
    /// How many workers died while they may have been running the task.
    pub(super) worker_deaths: u16,
    /// How many graphs with it were taken in only in part: somebody may want it when all is there.
    pub(super) arriving: u16,
    pub(super) data_producer: bool,
    pub(super) actor: bool,
    /// Was taken from a silent worker while it ran there. It may be what silences workers, so it is not taken from the next.
    pub(super) was_taken: bool,
}

const _: () = assert!(size_of::<Task>() <= 304, "a task record has grown: a million of them are held");

/// Where a task stands, with what only that state knows. Names are Dask's; a forgotten task has no record.
#[derive(Clone, Debug)]
pub(super) enum TaskState {
    /// Nobody needs it.
    Released,
    /// Needed, but a dependency is not in memory.
    Waiting,
    /// Ready to run, but no running worker meets its requirement.
    NoWorker,
    /// Ready to run, and waits for a worker to have room.
    Queued,
    /// Given to a worker.
    Processing(Run),
    /// Done, and held by at least one worker.
    Memory(Replicas),
    /// Failed for good, itself or through a dependency.
    Erred(Blame),
}

/// One assignment of a task to a worker.
#[derive(Clone, Copy, Debug)]
pub(super) struct Run {
    pub(super) worker: WorkerId,
    pub(super) run_id: RunId,
    pub(super) since: Millis,
    /// What the run adds to its worker's occupancy; nothing once it seceded.
    pub(super) expected_us: u64,
    /// What the run takes, even if the task's own requirement is another by now.
    pub(super) requirement: RequirementId,
    /// Gave its thread back and runs on.
    pub(super) seceded: bool,
    /// A heartbeat or an answer said that it runs, so it is not merely queued on the worker.
    pub(super) executing: bool,
}

/// Who holds a result.
#[derive(Clone, Debug)]
pub(super) struct Replicas {
    /// Never empty, in order of arrival.
    pub(super) holders: SmallVec<[WorkerId; 4]>,
    pub(super) nbytes: u64,
    pub(super) value_type: TypeId,
    /// All holders are silent, so nobody can fetch it for now. Kept by `transition`.
    pub(super) out_of_reach: bool,
}

impl Replicas {
    /// What workers said that they hold.
    pub(super) fn new(holders: SmallVec<[WorkerId; 4]>, nbytes: u64, value_type: TypeId) -> Self {
        Self { holders, nbytes, value_type, out_of_reach: false }
    }
}

/// Why a task is erred.
#[derive(Clone, Debug)]
pub(super) enum Blame {
    /// It failed itself.
    Own(Arc<Fault>),
    /// A dependency failed, directly or further up.
    Dependency(Arc<Fault>),
}

/// A failure, shared by all tasks that it fails.
#[derive(Debug)]
pub(super) struct Fault {
    /// The task that failed itself.
    pub(super) key: TaskKey,
    pub(super) failure: Failure,
    pub(super) attempts: u32,
    /// The name of the worker it failed on last; empty when it never ran.
    pub(super) worker: String,
}

impl Blame {
    pub(super) fn fault(&self) -> &Arc<Fault> {
        match self {
            Self::Own(fault) | Self::Dependency(fault) => fault,
        }
    }
}

/// A state without its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum StateName {
    Released,
    Waiting,
    NoWorker,
    Queued,
    Processing,
    Memory,
    Erred,
}

impl StateName {
    pub(super) const COUNT: usize = 7;

    /// As Dask writes it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Waiting => "waiting",
            Self::NoWorker => "no-worker",
            Self::Queued => "queued",
            Self::Processing => "processing",
            Self::Memory => "memory",
            Self::Erred => "erred",
        }
    }

    /// On its way to `Memory`: such a task needs its dependencies.
    pub(super) fn is_live(self) -> bool {
        match self {
            Self::Waiting | Self::NoWorker | Self::Queued | Self::Processing => true,
            Self::Released | Self::Memory | Self::Erred => false,
        }
    }

    /// Stands in the queue of its requirement.
    pub(super) fn is_ready(self) -> bool {
        match self {
            Self::NoWorker | Self::Queued => true,
            Self::Released | Self::Waiting | Self::Processing | Self::Memory | Self::Erred => false,
        }
    }
}

impl TaskState {
    pub(super) fn name(&self) -> StateName {
        match self {
            Self::Released => StateName::Released,
            Self::Waiting => StateName::Waiting,
            Self::NoWorker => StateName::NoWorker,
            Self::Queued => StateName::Queued,
            Self::Processing(_) => StateName::Processing,
            Self::Memory(_) => StateName::Memory,
            Self::Erred(_) => StateName::Erred,
        }
    }
}

impl Task {
    /// A task that nobody needs yet and that cannot run before it is given a run spec.
    pub(super) fn new(key: TaskKey, origin: Owner, requirement: RequirementId, prefix: PrefixId) -> Self {
        Self {
            key,
            run_spec: None,
            state: TaskState::Released,
            dependencies: TaskList::new(),
            dependents: Dependents::new(),
            missing: 0,
            failed: 0,
            waiters: 0,
            wanted_by: SmallVec::new(),
            member_of: SmallVec::new(),
            origin,
            priority: Priority::new(0.0, 0.0, 0),
            requirement,
            prefix,
            retries: 0,
            failures: 0,
            worker_deaths: 0,
            arriving: 0,
            data_producer: false,
            actor: false,
            was_taken: false,
        }
    }

    pub(super) fn state(&self) -> &TaskState {
        &self.state
    }

    pub(super) fn state_name(&self) -> StateName {
        self.state.name()
    }

    /// Only `Engine::transition` calls this: indexes and counters hang on the state.
    pub(super) fn replace_state(&mut self, state: TaskState) -> TaskState {
        std::mem::replace(&mut self.state, state)
    }

    /// The assignment, while processing.
    pub(super) fn run(&self) -> Option<&Run> {
        match &self.state {
            TaskState::Processing(run) => Some(run),
            TaskState::Released
            | TaskState::Waiting
            | TaskState::NoWorker
            | TaskState::Queued
            | TaskState::Memory(_)
            | TaskState::Erred(_) => None,
        }
    }

    /// For what changes while the task stays in `Processing`.
    pub(super) fn run_mut(&mut self) -> Option<&mut Run> {
        match &mut self.state {
            TaskState::Processing(run) => Some(run),
            TaskState::Released
            | TaskState::Waiting
            | TaskState::NoWorker
            | TaskState::Queued
            | TaskState::Memory(_)
            | TaskState::Erred(_) => None,
        }
    }

    pub(super) fn is_processing_on(&self, worker: WorkerId) -> bool {
        self.run().is_some_and(|run| run.worker == worker)
    }

    /// The replicas, while in memory.
    pub(super) fn replicas(&self) -> Option<&Replicas> {
        match &self.state {
            TaskState::Memory(replicas) => Some(replicas),
            TaskState::Released
            | TaskState::Waiting
            | TaskState::NoWorker
            | TaskState::Queued
            | TaskState::Processing(_)
            | TaskState::Erred(_) => None,
        }
    }

    /// For replicas that come and go while the task stays in `Memory`.
    pub(super) fn replicas_mut(&mut self) -> Option<&mut Replicas> {
        match &mut self.state {
            TaskState::Memory(replicas) => Some(replicas),
            TaskState::Released
            | TaskState::Waiting
            | TaskState::NoWorker
            | TaskState::Queued
            | TaskState::Processing(_)
            | TaskState::Erred(_) => None,
        }
    }

    /// Whether a worker has the actor itself: it ran there before others could fetch proxies.
    pub(super) fn is_actor_on(&self, worker: WorkerId) -> bool {
        self.actor && self.holders().first() == Some(&worker)
    }

    /// Whether the result is somewhere where others can fetch it.
    pub(super) fn is_within_reach(&self) -> bool {
        self.replicas().is_some_and(|replicas| !replicas.out_of_reach)
    }

    pub(super) fn holders(&self) -> &[WorkerId] {
        self.replicas().map_or(&[], |replicas| &replicas.holders)
    }

    /// The size of the result, while in memory.
    pub(super) fn nbytes(&self) -> u64 {
        self.replicas().map_or(0, |replicas| replicas.nbytes)
    }

    /// Why the task is erred.
    pub(super) fn blame(&self) -> Option<&Blame> {
        match &self.state {
            TaskState::Erred(blame) => Some(blame),
            TaskState::Released
            | TaskState::Waiting
            | TaskState::NoWorker
            | TaskState::Queued
            | TaskState::Processing(_)
            | TaskState::Memory(_) => None,
        }
    }

    /// Whether anybody wants the result or waits for it, or may do so when all of its graph is there.
    pub(super) fn is_needed(&self) -> bool {
        self.waiters > 0 || !self.wanted_by.is_empty() || self.arriving > 0
    }

    /// Whether a worker died with it, so that it runs apart from others of its kind.
    pub(super) fn is_suspect(&self) -> bool {
        self.worker_deaths > 0
    }

    /// Whether there is nothing left to do for the task: its result is there, or nothing needs it.
    pub(super) fn is_done(&self) -> bool {
        match self.state {
            TaskState::Memory(_) | TaskState::Released => true,
            TaskState::Waiting | TaskState::NoWorker | TaskState::Queued | TaskState::Processing(_) | TaskState::Erred(_) => {
                false
            }
        }
    }
}
