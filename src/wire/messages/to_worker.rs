//! What we say on a worker's stream.
//!
//! The worker makes of each message an object of exactly these fields; one more or one less, and it exits.
//!
//! Source: distributed 2026.8.0, worker_state_machine.py: subclasses of `StateMachineEvent`; worker.py: `stream_handlers`.

use super::{head, named_key, named_keys, named_text};
use crate::dask::{Priority, RunSpec, TaskKey, WorkerAddress};
use crate::wire::encode::{Encode, Encoder};
use crate::wire::value::Value;

/// A message of a worker's stream.
#[derive(Clone, Debug, PartialEq)]
pub enum ToWorker {
    ComputeTask(Box<ComputeTask>),
    /// Forget these tasks and their results.
    FreeKeys {
        keys: Vec<TaskKey>,
        stimulus_id: String,
    },
    /// Fetch these.
    AcquireReplicas {
        replicas: Vec<Replica>,
        stimulus_id: String,
    },
    /// Drop these replicas. Never for a dependency of a task that may be executing there: the worker would exit.
    RemoveReplicas {
        keys: Vec<TaskKey>,
        stimulus_id: String,
    },
    /// Take back a task that has not started. It may have no dependents on that worker.
    CancelCompute {
        key: TaskKey,
        stimulus_id: String,
    },
    /// Give back a task that has not started; answered by `steal-response`.
    StealRequest {
        key: TaskKey,
        stimulus_id: String,
    },
    RefreshWhoHas {
        who_has: Vec<(TaskKey, Vec<WorkerAddress>)>,
        stimulus_id: String,
    },
    /// Another worker is gone: forget its replicas.
    RemoveWorker {
        worker: WorkerAddress,
        stimulus_id: String,
    },
    WorkerStatusChange {
        status: String,
        stimulus_id: String,
    },
    /// Exit; `nanny` says whether the nanny exits too.
    Close {
        reason: Option<String>,
        nanny: Option<bool>,
    },
    CloseStream,
    /// A P2P shuffle is over or failed. Only for a worker with the shuffle plugin.
    ShuffleFail {
        shuffle_id: String,
        run_id: u64,
        message: String,
    },
}

/// A dependency or a wanted replica: its key, its size, and who holds it, at least one.
pub type Replica = (TaskKey, u64, Vec<WorkerAddress>);

/// Run a task.
#[derive(Clone, Debug, PartialEq)]
pub struct ComputeTask {
    pub key: TaskKey,
    pub run_id: u64,
    /// Exactly the dependencies that the run spec names.
    pub dependencies: Vec<Replica>,
    pub priority: Priority,
    pub run_spec: RunSpec,
    /// Only names that the worker itself declared: others make it exit.
    pub resource_restrictions: Vec<(String, f64)>,
    pub actor: bool,
    /// A map; the worker reads `executor` and `span` of it.
    pub annotations: Value,
    pub span_id: Option<String>,
    pub stimulus_id: String,
}

impl ToWorker {
    /// All ops that there are.
    pub const OPS: [&'static str; 12] = [
        "compute-task",
        "free-keys",
        "acquire-replicas",
        "remove-replicas",
        "cancel-compute",
        "steal-request",
        "refresh-who-has",
        "remove-worker",
        "worker-status-change",
        "close",
        "close-stream",
        "shuffle-fail",
    ];

    pub fn op(&self) -> &'static str {
        match self {
            Self::ComputeTask(_) => "compute-task",
            Self::FreeKeys { .. } => "free-keys",
            Self::AcquireReplicas { .. } => "acquire-replicas",
            Self::RemoveReplicas { .. } => "remove-replicas",
            Self::CancelCompute { .. } => "cancel-compute",
            Self::StealRequest { .. } => "steal-request",
            Self::RefreshWhoHas { .. } => "refresh-who-has",
            Self::RemoveWorker { .. } => "remove-worker",
            Self::WorkerStatusChange { .. } => "worker-status-change",
            Self::Close { .. } => "close",
            Self::CloseStream => "close-stream",
            Self::ShuffleFail { .. } => "shuffle-fail",
        }
    }
}

impl Encode for ToWorker {
    fn encode(&self, encoder: &mut Encoder) {
        let op = self.op();
        match self {
            Self::ComputeTask(task) => task.encode(encoder),
            Self::FreeKeys { keys, stimulus_id } | Self::RemoveReplicas { keys, stimulus_id } => {
                head(encoder, op, 2);
                named_keys(encoder, keys);
                named_text(encoder, "stimulus_id", stimulus_id);
            }
            Self::AcquireReplicas { replicas, stimulus_id } => {
                head(encoder, op, 3);
                who_has_and_nbytes(encoder, replicas);
                named_text(encoder, "stimulus_id", stimulus_id);
            }
            Self::CancelCompute { key, stimulus_id } | Self::StealRequest { key, stimulus_id } => {
                head(encoder, op, 2);
                named_key(encoder, key);
                named_text(encoder, "stimulus_id", stimulus_id);
            }
            Self::RefreshWhoHas { who_has, stimulus_id } => {
                head(encoder, op, 2);
                encoder.text("who_has");
                encoder.map(who_has.len());
                for (key, workers) in who_has {
                    encoder.key(key);
                    addresses(encoder, workers);
                }
                named_text(encoder, "stimulus_id", stimulus_id);
            }
            Self::RemoveWorker { worker, stimulus_id } => {
                head(encoder, op, 2);
                named_text(encoder, "worker", worker.as_str());
                named_text(encoder, "stimulus_id", stimulus_id);
            }
            Self::WorkerStatusChange { status, stimulus_id } => {
                head(encoder, op, 2);
                named_text(encoder, "status", status);
                named_text(encoder, "stimulus_id", stimulus_id);
            }
            Self::Close { reason, nanny } => {
                head(encoder, op, usize::from(reason.is_some()) + usize::from(nanny.is_some()));
                if let Some(reason) = reason {
                    named_text(encoder, "reason", reason);
                }
                if let Some(nanny) = nanny {
                    encoder.text("nanny");
                    encoder.boolean(*nanny);
                }
            }
            Self::CloseStream => head(encoder, op, 0),
            Self::ShuffleFail { shuffle_id, run_id, message } => {
                head(encoder, op, 3);
                named_text(encoder, "shuffle_id", shuffle_id);
                encoder.text("run_id");
                encoder.unsigned(*run_id);
                named_text(encoder, "message", message);
            }
        }
    }
}

impl Encode for ComputeTask {
    fn encode(&self, encoder: &mut Encoder) {
        head(encoder, "compute-task", 11);
        named_key(encoder, &self.key);
        encoder.text("run_id");
        encoder.unsigned(self.run_id);
        encoder.text("priority");
        encoder.array(3);
        // The worker's order is ascending, the user's is "higher runs first".
        encoder.number(-self.priority.user);
        encoder.number(self.priority.generation);
        encoder.integer(self.priority.order);
        named_text(encoder, "stimulus_id", &self.stimulus_id);
        who_has_and_nbytes(encoder, &self.dependencies);
        encoder.text("run_spec");
        encoder.run_spec(&self.run_spec);
        encoder.text("resource_restrictions");
        if self.resource_restrictions.is_empty() {
            encoder.nil();
        } else {
            encoder.map(self.resource_restrictions.len());
        }
        for (name, amount) in &self.resource_restrictions {
            encoder.text(name);
            encoder.number(*amount);
        }
        encoder.text("actor");
        encoder.boolean(self.actor);
        encoder.text("annotations");
        encoder.value(&self.annotations);
        encoder.text("span_id");
        encoder.optional_text(self.span_id.as_deref());
    }
}

fn who_has_and_nbytes(encoder: &mut Encoder, replicas: &[Replica]) {
    encoder.text("who_has");
    encoder.map(replicas.len());
    for (key, _, workers) in replicas {
        encoder.key(key);
        addresses(encoder, workers);
    }
    encoder.text("nbytes");
    encoder.map(replicas.len());
    for (key, nbytes, _) in replicas {
        encoder.key(key);
        encoder.unsigned(*nbytes);
    }
}

fn addresses(encoder: &mut Encoder, workers: &[WorkerAddress]) {
    encoder.array(workers.len());
    for worker in workers {
        encoder.text(worker.as_str());
    }
}
