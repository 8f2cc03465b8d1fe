//! What workers say on their streams.

use crate::dask::{TaskKey, readable_exception};
use crate::engine::{self, Failure, RunId, Stimulus, WorkerId, WorkerStatus};
use crate::server::carry_out::run_of_steal_request;
use crate::server::namespace::Namespace;
use crate::server::silence;
use crate::server::workers::{declared, status};
use crate::wire::messages::{FromWorker, HeldKey, Inventory, StartedRun, TaskErred, TaskFinished};
use crate::wire::value::Value;

impl Namespace {
    pub(crate) fn on_worker_says(&mut self, worker: WorkerId, messages: Vec<FromWorker>) {
        if self.workers.get(worker).is_none() {
            return;
        }
        self.heard_of(worker);
        for message in messages {
            let is_last = matches!(message, FromWorker::CloseStream);
            self.on_worker_message(worker, message);
            if is_last {
                return;
            }
        }
    }

    fn on_worker_message(&mut self, worker: WorkerId, message: FromWorker) {
        let stimulus = match message {
            FromWorker::TaskFinished(finished) => task_finished(worker, finished),
            FromWorker::TaskErred(erred) => task_erred(worker, *erred),
            FromWorker::Reschedule { key } => Stimulus::Reschedule { worker, key },
            FromWorker::LongRunning { key, run_id, compute_duration } => {
                Stimulus::LongRunning { worker, key, run_id: RunId(run_id), compute_ms: compute_duration.map(|s| s * 1e3) }
            }
            FromWorker::ReleaseWorkerData { key } => Stimulus::ReleaseWorkerData { worker, key },
            FromWorker::AddKeys { keys } => Stimulus::AddKeys { worker, keys },
            FromWorker::RequestRefreshWhoHas { keys } => Stimulus::RequestRefreshWhoHas { worker, keys },
            FromWorker::StealResponse { stimulus_id, .. } if silence::is_answer(&stimulus_id) => return,
            FromWorker::StealResponse { key, state, stimulus_id } => {
                // Without a run it answers no question of ours.
                let run_id = run_of_steal_request(&stimulus_id).unwrap_or(RunId(0));
                Stimulus::StealResponse { worker, key, run_id, state }
            }
            FromWorker::WorkerStatusChange { status } => return self.on_worker_status(worker, status),
            FromWorker::LogEvent { topics, msg } => return self.on_worker_logs(worker, topics, msg),
            FromWorker::Inventory(inventory) => Stimulus::WorkerInventory { worker, inventory: brought(inventory) },
            FromWorker::InventoryDocuments { names } => return self.on_documents(worker, names),
            FromWorker::InventoryErred(erred) => Stimulus::WorkerInventory { worker, inventory: brought_failure(*erred) },
            FromWorker::KeepAlive => return,
            FromWorker::CloseStream => return self.on_worker_closes(worker),
            FromWorker::Unknown { op } => return self.count_unknown_op(&op),
        };
        self.hear(stimulus);
    }

    fn on_worker_status(&mut self, worker: WorkerId, text: String) {
        let Some(entry) = self.workers.entries.get_mut(&worker) else { return };
        let new = status(&text);
        let is_first = entry.status != "running" && new == WorkerStatus::Running;
        let changed = [("prev-status", entry.status.as_str().into()), ("status", text.as_str().into())];
        let address = entry.address.clone();
        entry.is_leaving = matches!(new, WorkerStatus::Closing | WorkerStatus::ClosingGracefully);
        entry.status = text;
        self.stimulate(Stimulus::WorkerStatusChanged { worker, status: new });
        self.on_all_said(worker);
        self.note(&[address.as_str()], "worker-status-change", changed);
        if is_first {
            self.retry_failed_builds();
            self.spread_documents();
            self.look_at_departures();
        }
        self.start_builds();
        self.start_lowering();
    }

    pub(crate) fn note_new_worker(&mut self, worker: WorkerId) {
        let Some(address) = self.workers.get(worker).map(|worker| worker.address.clone()) else { return };
        self.note(&["all", address.as_str()], "add-worker", [("worker", address.as_str().into())]);
    }

    fn on_worker_closes(&mut self, worker: WorkerId) {
        if let Some(entry) = self.workers.entries.get_mut(&worker) {
            entry.is_leaving = true;
        }
        self.on_worker_gone(worker);
    }

    fn on_worker_logs(&mut self, worker: WorkerId, topics: Vec<String>, mut msg: Value) {
        let Some(entry) = self.workers.get(worker) else { return };
        let address = entry.address.clone();
        if let Value::Map(entries) = &mut msg
            && !topics.iter().any(|topic| topic == address.as_str())
        {
            entries.push(("worker".into(), address.as_str().into()));
        }
        self.log_event(&topics, &msg);
    }
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

fn task_erred(worker: WorkerId, erred: TaskErred) -> Stimulus {
    let (key, run_id, failure) = failed(erred);
    Stimulus::TaskErred { worker, key, run_id, failure }
}

fn failed(erred: TaskErred) -> (TaskKey, RunId, Failure) {
    let failure = Failure {
        exception: crate::engine::Exception::Raised { exception: erred.exception, traceback: erred.traceback },
        exception_text: readable_exception(&erred.exception_text),
        traceback_text: erred.traceback_text,
    };
    (erred.key, RunId(erred.run_id), failure)
}

fn brought(inventory: Inventory) -> engine::Inventory {
    let held = inventory.held.into_iter();
    let held = held.map(|HeldKey { key, nbytes, type_pickle, is_actor }| engine::HeldKey { key, nbytes, type_pickle, is_actor });
    let runs = inventory.runs.into_iter().map(|run| {
        let StartedRun { key, run_id, has_thread, is_wanted, resources } = run;
        engine::StartedRun { key, run_id: RunId(run_id), has_thread, is_wanted, resources: declared(&resources) }
    });
    engine::Inventory { held: held.collect(), runs: runs.collect(), failures: Vec::new() }
}

fn brought_failure(erred: TaskErred) -> engine::Inventory {
    engine::Inventory { failures: vec![failed(erred)], ..engine::Inventory::default() }
}
