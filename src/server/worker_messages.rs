//! What workers say on their streams.

use crate::engine::{Stimulus, WorkerId, WorkerStatus};
use crate::server::namespace::Namespace;
use crate::server::silence;
use crate::translate;
use crate::wire::messages::FromWorker;
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
        match message {
            FromWorker::StealResponse { stimulus_id, .. } if silence::is_answer(&stimulus_id) => {}
            FromWorker::WorkerStatusChange { status } => self.on_worker_status(worker, status),
            FromWorker::LogEvent { topics, msg } => self.on_worker_logs(worker, topics, msg),
            FromWorker::InventoryDocuments { names } => self.on_documents(worker, names),
            FromWorker::CloseStream => self.on_worker_closes(worker),
            FromWorker::Unknown { op } => self.count_unknown_op(&op),
            said => {
                if let Some(stimulus) = translate::stimulus(worker, said) {
                    self.hear(stimulus);
                }
            }
        }
    }

    fn on_worker_status(&mut self, worker: WorkerId, text: String) {
        let Some(entry) = self.workers.entries.get_mut(&worker) else { return };
        let new = translate::status(&text);
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
