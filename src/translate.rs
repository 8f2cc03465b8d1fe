//! What workers say as the engine's stimuli, and its instructions as what workers are told.
//!
//! All of it follows from the message or instruction alone. What takes more to know, such as what a Client is told of a result, is
//! the server's.

use crate::dask::{TaskKey, readable_exception};
use crate::engine::{
    self, Amount, ComputeTask, Exception, Failure, Instruction, Resources, RunId, Stimulus, WorkerId, WorkerStatus,
};
use crate::wire::Encode;
use crate::wire::messages::{ComputeTaskView, FromWorker, Inventory, StartedRun, TaskErred, TaskFinished, ToWorker};
use crate::wire::value::Value;

/// The stimulus that a worker's message is, if it is one and needs nothing else to be known.
pub fn stimulus(worker: WorkerId, message: FromWorker) -> Option<Stimulus> {
    Some(match message {
        FromWorker::TaskFinished(finished) => task_finished(worker, finished),
        FromWorker::TaskErred(erred) => {
            let (key, run_id, failure) = failed(*erred);
            Stimulus::TaskErred { worker, key, run_id, failure }
        }
        FromWorker::Reschedule { key } => Stimulus::Reschedule { worker, key },
        FromWorker::LongRunning { key, run_id, compute_duration } => {
            Stimulus::LongRunning { worker, key, run_id: RunId(run_id), compute_ms: compute_duration.map(|s| s * 1e3) }
        }
        FromWorker::ReleaseWorkerData { key } => Stimulus::ReleaseWorkerData { worker, key },
        FromWorker::AddKeys { keys } => Stimulus::AddKeys { worker, keys },
        FromWorker::RequestRefreshWhoHas { keys } => Stimulus::RequestRefreshWhoHas { worker, keys },
        FromWorker::StealResponse { key, state, stimulus_id } => {
            // Without a run it answers no question of ours.
            let run_id = run_of_steal_request(&stimulus_id).unwrap_or(RunId(0));
            Stimulus::StealResponse { worker, key, run_id, state }
        }
        FromWorker::Inventory(inventory) => Stimulus::WorkerInventory { worker, inventory: brought(inventory) },
        FromWorker::InventoryErred(erred) => {
            let inventory = engine::Inventory { failures: vec![failed(*erred)], ..engine::Inventory::default() };
            Stimulus::WorkerInventory { worker, inventory }
        }
        FromWorker::WorkerStatusChange { .. }
        | FromWorker::LogEvent { .. }
        | FromWorker::InventoryDocuments { .. }
        | FromWorker::KeepAlive
        | FromWorker::CloseStream
        | FromWorker::Unknown { .. } => return None,
    })
}

/// Which worker is told what by an instruction, if it is about a worker and no run.
pub fn to_worker(instruction: Instruction) -> Option<(WorkerId, ToWorker)> {
    let because = |name: &str| format!("mainstay-{name}");
    Some(match instruction {
        Instruction::FreeKeys { worker, keys } => (worker, ToWorker::FreeKeys { keys, stimulus_id: because("free-keys") }),
        Instruction::AcquireReplicas { worker, replicas } => {
            (worker, ToWorker::AcquireReplicas { replicas, stimulus_id: because("acquire-replicas") })
        }
        Instruction::RemoveReplicas { worker, keys } => {
            (worker, ToWorker::RemoveReplicas { keys, stimulus_id: because("remove-replicas") })
        }
        Instruction::StealRequest { worker, key, run_id } => {
            (worker, ToWorker::StealRequest { key, stimulus_id: steal_request_id(run_id) })
        }
        Instruction::RefreshWhoHas { worker, who_has } => {
            (worker, ToWorker::RefreshWhoHas { who_has, stimulus_id: because("refresh-who-has") })
        }
        Instruction::RemoveWorker { worker, gone } => {
            (worker, ToWorker::RemoveWorker { worker: gone, stimulus_id: because("remove-worker") })
        }
        Instruction::ComputeTask { .. }
        | Instruction::KeyInMemory { .. }
        | Instruction::TaskErred { .. }
        | Instruction::LostData { .. }
        | Instruction::CancelledKeys { .. }
        | Instruction::TaskRetried { .. }
        | Instruction::ShuffleOver { .. }
        | Instruction::CollectionChanged { .. }
        | Instruction::CollectionReleased { .. } => return None,
    })
}

/// The message that has a worker run a task. `declared` is what the worker itself declared: the name of another resource would make
/// it exit, so the engine alone counts those.
pub fn compute_task<'e>(
    task: ComputeTask<'e>,
    imports: Option<&'e str>,
    declared: &'e Resources,
    annotations: &'e Value,
) -> impl Encode + use<'e> {
    let is_taken = |(name, amount): &(&str, Amount)| !amount.is_zero() && !declared.get(name).is_zero();
    ComputeTaskView {
        key: task.key(),
        run_id: task.run_id().0,
        dependencies: task.dependencies().map(|each| (each.key(), each.nbytes(), each.holders())),
        priority: task.priority(),
        run_spec: task.run_spec(),
        imports,
        resource_restrictions: task.resources().iter().filter(is_taken).map(|(name, amount)| (name, amount.as_f64())),
        actor: task.is_actor(),
        annotations,
        span_id: None,
        stimulus_id: "mainstay-compute-task",
    }
}

/// The amounts that a worker declares; what is no amount is left out.
pub fn declared(resources: &[(String, f64)]) -> Resources {
    Resources(resources.iter().filter_map(|(name, amount)| Some((name.clone(), Amount::from_f64(*amount).ok()?))).collect())
}

/// A worker's status, as it calls it.
pub fn status(text: &str) -> WorkerStatus {
    match text {
        "running" => WorkerStatus::Running,
        "paused" => WorkerStatus::Paused,
        "closing_gracefully" => WorkerStatus::ClosingGracefully,
        "init" | "created" => WorkerStatus::Init,
        _ => WorkerStatus::Closing,
    }
}

/// Says which run is asked for: the answer repeats it.
fn steal_request_id(run_id: RunId) -> String {
    format!("mainstay-steal-request-{}", run_id.0)
}

/// The run that a steal request was about, from its answer.
fn run_of_steal_request(stimulus_id: &str) -> Option<RunId> {
    stimulus_id.rsplit('-').next()?.parse().ok().map(RunId)
}

fn task_finished(worker: WorkerId, finished: TaskFinished) -> Stimulus {
    Stimulus::TaskFinished {
        worker,
        key: finished.key,
        run_id: RunId(finished.run_id),
        nbytes: finished.nbytes,
        type_pickle: finished.type_pickle,
        compute_ms: finished.compute_seconds.map(|seconds| seconds * 1e3),
    }
}

fn failed(erred: TaskErred) -> (TaskKey, RunId, Failure) {
    let failure = Failure {
        exception: Exception::Raised { exception: erred.exception, traceback: erred.traceback },
        exception_text: readable_exception(&erred.exception_text),
        traceback_text: erred.traceback_text,
    };
    (erred.key, RunId(erred.run_id), failure)
}

fn brought(inventory: Inventory) -> engine::Inventory {
    let runs = inventory.runs.into_iter().map(|run| {
        let StartedRun { key, run_id, has_thread, is_wanted, resources } = run;
        engine::StartedRun { key, run_id: RunId(run_id), has_thread, is_wanted, resources: declared(&resources) }
    });
    engine::Inventory { held: inventory.held, runs: runs.collect(), failures: Vec::new() }
}
