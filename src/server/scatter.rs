//! Values that Clients put on workers.
//!
//! Source: distributed 2026.8.0, scheduler.py: `scatter`, `update_data`.

use std::collections::BTreeMap;

use crate::dask::{TaskKey, WorkerAddress};
use crate::engine::{ClientId, Stimulus, WorkerId};
use crate::server::call;
use crate::server::event::{Answer, Scattered};
use crate::server::namespace::Namespace;
use crate::server::requests::{Reply, keys_value};
use crate::wire::document::{DocumentError, Fields};
use crate::wire::value::Value;

impl Namespace {
    pub(crate) fn scatter(&mut self, fields: &Fields<'_>) -> Result<Reply, DocumentError> {
        let data = fields.by_key("data")?;
        let client = fields.optional_text("client")?.and_then(|name| self.clients.by_name(name));
        let client = client.unwrap_or_else(|| self.clients.standing("scatter"));
        let targets = self.selected(fields)?.into_iter().filter(|(_, worker)| worker.status == "running");
        let targets: Vec<_> = targets.map(|(id, worker)| (id, worker.address.clone())).collect();
        let copies = copies(&fields.optional_value("broadcast")?, targets.len());
        Ok(Reply::later(move |namespace, answer| {
            let scatter = call::Scatter { client, data, targets, copies };
            call::scatter(namespace.pool.clone(), namespace.events.clone(), scatter, answer);
        }))
    }

    /// A Client has put values on workers by itself and says where.
    pub(crate) fn update_data(&mut self, fields: &Fields<'_>) -> Result<(), DocumentError> {
        let client = fields.optional_text("client")?.and_then(|name| self.clients.by_name(name));
        let client = client.unwrap_or_else(|| self.clients.standing("scatter"));
        let sizes = if fields.has("nbytes") { fields.by_key("nbytes")? } else { Vec::new() };
        let sizes: BTreeMap<TaskKey, Value> = sizes.into_iter().collect();
        for (key, holders) in fields.by_key("who_has")? {
            let holders = holders.as_elements().unwrap_or_default().iter();
            let workers: Vec<WorkerId> =
                holders.filter_map(|holder| self.workers.by_address(&WorkerAddress::new(holder.as_text()?))).collect();
            let nbytes = sizes.get(&key).and_then(Value::as_integer);
            let nbytes = nbytes.unwrap_or_default().max(0) as u64;
            if !workers.is_empty() {
                self.stimulate(Stimulus::DataScattered { client, key, nbytes, typename: String::new(), workers });
            }
        }
        Ok(())
    }

    /// Scattered values have reached their workers: from here on they are data of the engine.
    pub(crate) fn on_scattered(&mut self, client: ClientId, scattered: Vec<Scattered>, answer: Answer) {
        let keys: Vec<TaskKey> = scattered.iter().map(|each| each.key.clone()).collect();
        for Scattered { key, nbytes, workers } in scattered {
            self.stimulate(Stimulus::DataScattered { client, key, nbytes, typename: String::new(), workers });
        }
        // The caller may have gone.
        let _ = answer.send(keys_value(&keys).encode());
    }
}

/// On how many workers each value is to be: `broadcast` says one, a number, or all.
fn copies(broadcast: &Value, workers: usize) -> usize {
    match broadcast {
        Value::Boolean(true) => workers,
        Value::Integer(number) => usize::try_from(*number).unwrap_or_default().clamp(1, workers.max(1)),
        _ => 1,
    }
}
