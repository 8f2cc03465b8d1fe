//! Turns the engine's instructions into messages.

use bytes::Bytes;

use crate::engine::{Exception, Instruction, RunId, Stimulus};
use crate::server::namespace::Namespace;
use crate::wire::messages::{ToClient, ToWorker};
use crate::wire::pickle::Object;
use crate::wire::value::Value;

impl Namespace {
    pub(crate) fn carry_out(&mut self, instruction: Instruction) {
        match instruction {
            Instruction::ComputeTask { worker, run_id } => {
                // A run that carrying out an earlier instruction has ended is not worth a word.
                if let Some(task) = self.engine.compute_task(run_id) {
                    self.workers.tell_run(worker, task);
                }
            }
            Instruction::FreeKeys { worker, keys } => {
                self.workers.tell(worker, &ToWorker::FreeKeys { keys, stimulus_id: "mainstay-free-keys".to_owned() });
            }
            Instruction::AcquireReplicas { worker, replicas } => {
                self.workers
                    .tell(worker, &ToWorker::AcquireReplicas { replicas, stimulus_id: "mainstay-acquire-replicas".to_owned() });
            }
            Instruction::RemoveReplicas { worker, keys } => {
                self.workers.tell(worker, &ToWorker::RemoveReplicas { keys, stimulus_id: "mainstay-remove-replicas".to_owned() });
            }
            Instruction::StealRequest { worker, key, run_id } => {
                self.workers.tell(worker, &ToWorker::StealRequest { key, stimulus_id: steal_request_id(run_id) });
            }
            Instruction::RefreshWhoHas { worker, who_has } => {
                self.workers
                    .tell(worker, &ToWorker::RefreshWhoHas { who_has, stimulus_id: "mainstay-refresh-who-has".to_owned() });
            }
            Instruction::RemoveWorker { worker, gone } => {
                self.workers
                    .tell(worker, &ToWorker::RemoveWorker { worker: gone, stimulus_id: "mainstay-remove-worker".to_owned() });
            }
            Instruction::KeyInMemory { client, key, type_pickle } => {
                if self.clients.is_fire_and_forget(client) {
                    return self.stimulate(Stimulus::ClientReleasesKeys { client, keys: vec![key] });
                }
                let type_pickle = Some(type_pickle).filter(|pickle: &Bytes| !pickle.is_empty());
                self.clients.tell(client, &ToClient::KeyInMemory { key, type_pickle });
            }
            Instruction::TaskErred { client, key, exception } => {
                if self.clients.is_fire_and_forget(client) {
                    return self.stimulate(Stimulus::ClientReleasesKeys { client, keys: vec![key] });
                }
                if let Exception::LostDependencies { message } = exception {
                    let reason = Some(format!("lost dependencies: {message}"));
                    self.clients.tell(client, &ToClient::CancelledKeys { keys: vec![key.clone()], reason, msg: None });
                    return self.stimulate(Stimulus::ClientReleasesKeys { client, keys: vec![key] });
                }
                let (exception, traceback) = exception_values(&key, exception);
                self.clients.tell(client, &ToClient::TaskErred { key, exception, traceback });
            }
            Instruction::LostData { client, key } => self.clients.tell(client, &ToClient::LostData { key }),
            Instruction::CancelledKeys { client, keys, reason } => {
                let cancelled = ToClient::CancelledKeys { keys, reason: Some(reason), msg: None };
                self.clients.tell(client, &cancelled);
            }
            Instruction::TaskRetried { client, key } => self.clients.tell(client, &ToClient::TaskRetried { key }),
            Instruction::ShuffleOver { barrier } => self.on_shuffle_over(&barrier),
            Instruction::CollectionChanged { collection } => self.on_collection_changed(collection),
            Instruction::CollectionReleased { collection } => self.on_collection_released(collection),
        }
    }
}

/// Says which run is asked for: the answer repeats it.
fn steal_request_id(run_id: RunId) -> String {
    format!("mainstay-steal-request-{}", run_id.0)
}

/// The run that a steal request was about, from its answer.
pub(crate) fn run_of_steal_request(stimulus_id: &str) -> Option<RunId> {
    stimulus_id.rsplit('-').next()?.parse().ok().map(RunId)
}

/// An exception and a traceback as Clients take them.
pub(crate) fn exception_values(key: &crate::dask::TaskKey, exception: Exception) -> (Value, Value) {
    match exception {
        Exception::Raised { exception, traceback } => (exception.into(), traceback.into()),
        Exception::KilledWorker { last_worker, allowed_failures } => {
            (Value::Binary(Object::killed_worker(key, &last_worker, allowed_failures).dumps()), Value::Nil)
        }
        Exception::ActorLost { worker } => {
            let text = format!("Worker holding Actor was lost: {worker}");
            (Value::Binary(Object::runtime_error(&text).dumps()), Value::Nil)
        }
        Exception::LostDependencies { message } => (Value::Binary(Object::cancelled_error(&message).dumps()), Value::Nil),
        Exception::Refused { message } => (Value::Binary(Object::runtime_error(&message).dumps()), Value::Nil),
    }
}
