//! Comms on which somebody follows which workers come and go, as cluster managers do.
//!
//! Source: distributed 2026.8.0, scheduler.py: `subscribe_worker_status`, `WorkerStatusPlugin`.

use tokio::sync::mpsc;

use crate::comm::{CommError, Connection, Outbox};
use crate::engine::WorkerId;
use crate::server::event::Event;
use crate::server::namespace::Namespace;
use crate::wire::value::Value;

/// Those who follow at the same time.
const ONLOOKERS_MAX: usize = 1000;
/// Of what is said of a worker these change all the time.
const LEFT_OUT: [&str; 2] = ["metrics", "last_seen"];

/// Comms on which workers are announced.
#[derive(Debug, Default)]
pub(crate) struct Onlookers(Vec<Outbox>);

impl Onlookers {
    /// Tells all; those that do not take it are not told again.
    fn tell(&mut self, message: Value) {
        if self.0.is_empty() {
            return;
        }
        let chunks = Value::Array(vec![message]).encode();
        self.0.retain_mut(|outbox| outbox.push(chunks.clone()).is_ok());
    }
}

/// Tells which workers come and go, until the peer closes.
pub(crate) async fn serve(connection: Connection, events: &mpsc::Sender<Event>) -> Result<(), CommError> {
    let Connection { mut receiver, sender, .. } = connection;
    if events.send(Event::Onlooker { outbox: Outbox::start(sender) }).await.is_ok() {
        // It has nothing more to say; the next word to it fails when it has gone.
        while receiver.receive().await?.is_some() {}
    }
    Ok(())
}

impl Namespace {
    /// Somebody follows from here on; is told first how things stand.
    pub(crate) fn on_onlooker(&mut self, mut outbox: Outbox) {
        let identity = without_changing(self.identify(i64::MAX));
        if self.onlookers.0.len() < ONLOOKERS_MAX && outbox.push(identity.encode()).is_ok() {
            self.onlookers.0.push(outbox);
        }
    }

    pub(crate) fn tell_of_new_worker(&mut self, worker: WorkerId) {
        let Some(worker) = self.workers.get(worker) else { return };
        let workers = Value::Map(vec![(worker.address.as_str().into(), worker.identity())]);
        let told = without_changing(Value::map([("workers", workers)]));
        self.onlookers.tell(Value::Array(vec!["add".into(), told]));
    }

    pub(crate) fn tell_of_lost_worker(&mut self, address: &str) {
        self.onlookers.tell(Value::Array(vec!["remove".into(), address.into()]));
    }
}

fn without_changing(mut identity: Value) -> Value {
    let Value::Map(fields) = &mut identity else { return identity };
    let workers = fields.iter_mut().filter(|(name, _)| name.as_text() == Some("workers"));
    for (_, worker) in workers.filter_map(|(_, workers)| as_map_mut(workers)).flatten() {
        if let Some(fields) = as_map_mut(worker) {
            fields.retain(|(name, _)| name.as_text().is_none_or(|name| !LEFT_OUT.contains(&name)));
        }
    }
    identity
}

fn as_map_mut(value: &mut Value) -> Option<&mut Vec<(Value, Value)>> {
    match value {
        Value::Map(entries) => Some(entries),
        _ => None,
    }
}
