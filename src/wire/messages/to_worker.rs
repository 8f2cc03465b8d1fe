//! What we say on a worker's stream.
//!
//! The worker makes of each message an object of exactly these fields; one more or one less, and it exits.
//!
//! Source: distributed 2026.8.0, worker_state_machine.py: subclasses of `StateMachineEvent`; worker.py: `stream_handlers`.

use super::compute_task::{ComputeTask, who_has_and_nbytes};
use super::{head, named_key, named_keys, named_text};
use crate::dask::{TaskKey, WorkerAddress};
use crate::wire::encode::{Encode, Encoder};

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
                who_has_and_nbytes(encoder, replicas.iter().map(|(key, nbytes, workers)| (key, *nbytes, workers.iter())));
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

fn addresses(encoder: &mut Encoder, workers: &[WorkerAddress]) {
    encoder.array(workers.len());
    for worker in workers {
        encoder.text(worker.as_str());
    }
}
