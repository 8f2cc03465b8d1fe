//! Turns the engine's instructions into messages.

use bytes::Bytes;

use crate::engine::{Exception, Instruction, Stimulus};
use crate::server::namespace::Namespace;
use crate::translate;
use crate::wire::messages::ToClient;
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
            other => {
                if let Some((worker, message)) = translate::to_worker(other) {
                    self.workers.tell(worker, &message);
                }
            }
        }
    }
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
