//! Workers that claim the name or the address of another one: whether that is still there is asked at its address.
//!
//! A worker that was started again may come before the end of the former comm is noticed, so the newcomer is let in as soon as
//! the former is proven gone; and nobody takes the place of a worker that is there.

use std::net::IpAddr;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::comm::Pool;
use crate::dask::WorkerAddress;
use crate::engine::WorkerId;
use crate::server::accept::Reception;
use crate::server::event::Event;
use crate::server::namespace::Namespace;
use crate::wire::encode::encode_message;
use crate::wire::messages::Ask;
use crate::wire::messages::rpc::RegisterWorker;
use crate::wire::value::Value;

/// A worker that does not answer within this time counts as gone where another one wants its place.
const PROOF_TIMEOUT: Duration = Duration::from_secs(2);

/// Has whoever is gone leave, so that a newcomer can take its place.
///
/// # Errors
/// When another process listens at the newcomer's address.
pub(crate) async fn settle(newcomer: &RegisterWorker, peer: IpAddr, reception: &Reception) -> Result<(), String> {
    let (answer, answered) = oneshot::channel();
    let claim = Event::Claims { name: newcomer.name.clone(), address: newcomer.address.clone(), answer };
    // Nobody answers when the server ends.
    let Ok(()) = reception.events.send(claim).await else { return Ok(()) };
    let Ok(rivals) = answered.await else { return Ok(()) };
    for (worker, address) in rivals {
        let found = server_id(&reception.pool, &address).await;
        match found {
            Some(id) if address == newcomer.address && id != newcomer.server_id => {
                return Err(format!("another process than the one at {peer} that registers listens at {address}"));
            }
            // It is itself that comes again, or the name is taken, which the loop says.
            Some(_) => {}
            None => {
                let _ = reception.events.send(Event::WorkerGone { worker }).await;
            }
        }
    }
    Ok(())
}

/// Who listens at an address; `None` when nobody answers.
async fn server_id(pool: &Pool, address: &WorkerAddress) -> Option<String> {
    let asked = pool.call(address, encode_message(&Ask::new("identity")));
    let answer = timeout(PROOF_TIMEOUT, asked).await.ok()?.ok()?;
    Value::decode(&answer).ok()?.get("id").and_then(Value::as_text).map(str::to_owned)
}

impl Namespace {
    /// The workers that have the name or the address.
    pub(crate) fn rivals(&self, name: &str, address: &WorkerAddress) -> Vec<(WorkerId, WorkerAddress)> {
        let rivals = self.workers.iter().filter(|(_, worker)| worker.name == name || worker.address == *address);
        rivals.map(|(id, worker)| (id, worker.address.clone())).collect()
    }
}
