//! What the controller and local mode ask of a namespace's server, and what it tells them.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::mpsc;

use crate::engine::{Requirements, Summary};
use crate::server::admission::End;
use crate::server::build_request::BuildRequest;
use crate::server::inputs::MissingInput;

/// One collection as it should be.
#[derive(Clone, Debug, PartialEq)]
pub struct CollectionRequest {
    /// Identifies the object; a re-created one of the same name has another.
    pub uid: String,
    pub name: String,
    /// `metadata.generation` of the spec this was made from.
    pub generation: i64,
    /// Equal revisions have equal graphs: a request of the same revision does not build again.
    pub revision: String,
    pub build: Arc<BuildRequest>,
    pub requirements: Requirements,
    /// Counts on from there, if the server does not know the collection yet.
    pub past: Past,
}

/// What the status says that an operator before this one did for a collection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// Its place in the order.
    pub generation: Option<u64>,
    pub retries_used: u64,
    pub worker_lost: u64,
    /// How many runs of a task failed, by its key as the status shows it.
    pub failures: Vec<(String, u32)>,
}

/// What the server makes of one collection.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The generation and revision of the last request taken.
    pub generation: i64,
    pub revision: String,
    pub stage: Stage,
    /// The engine's view, once a graph was accepted (also while a newer revision is built).
    pub summary: Option<Box<Summary>>,
    pub outputs: Vec<OutputInfo>,
    /// The last worker that was refused, while no worker can take what there is to do.
    pub refusal: Option<Refusal>,
    /// The last workers that went with something of it that was nowhere else, the latest last.
    pub lost_workers: Vec<LostWorker>,
    /// An input that has gone since the graph was made of it: without it the graph stays, and cannot be made again.
    pub missing_input: Option<MissingInput>,
    /// The graph of this revision was made anew, of other inputs, and no output was lost since.
    pub is_remade: bool,
}

impl Report {
    /// Whether some of it waits for a worker to come.
    pub fn lacks_workers(&self) -> bool {
        let is_stuck = |summary: &Summary| summary.unrunnable.is_some() || summary.workers_running == 0;
        matches!(self.stage, Stage::WaitingForWorker { .. }) || self.summary.as_deref().is_some_and(is_stuck)
    }
}

/// A worker that was not let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Its name, or its host if it gave none.
    pub worker: String,
    pub reason: String,
}

/// A worker that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostWorker {
    /// Its pod, or its name where there are no pods.
    pub worker: String,
    /// How that came, as far as its pod says.
    pub end: Option<End>,
}

/// How far a collection's graph has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// No running worker may build it; so many run that may not, because `requirements.workers` does not select them.
    WaitingForWorker {
        workers_running: usize,
    },
    /// Others are built first.
    WaitingForTurn,
    /// An input is not there, or may soon be another.
    WaitingForInput(MissingInput),
    /// Each of these collections reads the next, and the last the first; this one is among them.
    InputCycle {
        cycle: Vec<String>,
    },
    Building {
        worker: String,
    },
    BuildFailed(BuildError),
    /// The engine has the graph.
    Accepted,
}

/// Why a source gives no graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildError {
    /// `SyntaxError`, `Raised`, `NameNotDefined`, … as the builder names it.
    pub kind: String,
    pub message: String,
    pub traceback: Option<String>,
    /// The line of the source.
    pub line: Option<u32>,
}

/// What is known of one output beside its keys' states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputInfo {
    pub name: String,
    /// `DataFrame`, `Array`, `int`, …
    pub type_name: String,
    pub keys: u64,
}

#[derive(Debug)]
pub(crate) enum Command {
    Apply(Arc<CollectionRequest>),
    Remove {
        uid: String,
    },
    /// Facts about pods changed: look again at every registered worker.
    WorkersChanged,
    /// All collections that there are were applied once.
    AllApplied,
}

pub(crate) type Reports = Arc<RwLock<BTreeMap<String, Arc<Report>>>>;

/// A way to one namespace's server; cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    pub(crate) reports: Reports,
}

impl Handle {
    /// Makes the server keep this collection as it says. Idempotent.
    pub fn apply(&self, request: Arc<CollectionRequest>) {
        self.send(Command::Apply(request));
    }

    /// Lets a collection go and frees what only it held; its report disappears when that is done. Idempotent.
    pub fn remove(&self, uid: &str) {
        self.send(Command::Remove { uid: uid.to_owned() });
    }

    /// Makes the server look again at the pods of its workers.
    pub fn workers_changed(&self) {
        self.send(Command::WorkersChanged);
    }

    /// Tells the server that it was asked for all collections that there are: what workers brought from an earlier server and
    /// none of these needs may go.
    pub fn all_applied(&self) {
        self.send(Command::AllApplied);
    }

    /// What the server makes of a collection; `None` when it does not know it (any more).
    pub fn report(&self, uid: &str) -> Option<Arc<Report>> {
        self.reports.read().unwrap_or_else(PoisonError::into_inner).get(uid).cloned()
    }

    /// Every report by uid, as they were at one moment.
    pub fn snapshot(&self) -> BTreeMap<String, Arc<Report>> {
        self.reports.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Every report there is.
    pub fn reports(&self) -> Vec<Arc<Report>> {
        self.reports.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    fn send(&self, command: Command) {
        // A server that has ended has no reports either: whoever asks sees that.
        let _ = self.commands.send(command);
    }
}
