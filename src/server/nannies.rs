//! Nannies that are starting their workers: what is registered for nannies meanwhile reaches them when they have.
//!
//! Source: distributed 2026.8.0, scheduler.py: `add_nanny`, `register_nanny_plugin`.

use tokio::sync::{mpsc, oneshot};

use crate::comm::{CommError, Connection};
use crate::server::call::{self, OnError};
use crate::server::event::{Answer, Event};
use crate::server::namespace::Namespace;
use crate::server::plugins::Host;
use crate::wire::messages::rpc;
use crate::wire::value::Value;

/// How many there are, and what waits for them.
#[derive(Debug, Default)]
pub(crate) struct StartingNannies {
    count: usize,
    waiting: Vec<(Value, Answer)>,
}

/// Tells a nanny what it has to know before it starts its worker, and waits until it has.
pub(crate) async fn serve(connection: Connection, events: &mpsc::Sender<Event>) -> Result<(), CommError> {
    let Connection { mut receiver, mut sender, .. } = connection;
    let (answer, answered) = oneshot::channel();
    if events.send(Event::NannyStarts { answer }).await.is_err() {
        return Ok(());
    }
    let Ok(chunks) = answered.await else { return Ok(()) };
    let mut end = sender.send(chunks).await;
    if end.is_ok() {
        // How it went is for its own log.
        end = receiver.receive().await.map(drop);
    }
    // The receiver is gone when the server ends, and with it whoever would want to know.
    let _ = events.send(Event::NannyStarted).await;
    end
}

impl Namespace {
    /// A nanny begins; gives what it has to be told.
    pub(crate) fn on_nanny_starts(&mut self) -> Value {
        self.starting_nannies.count += 1;
        rpc::nanny_registered(self.plugins.of(Host::Nanny))
    }

    /// Its worker is there, or it has given up.
    pub(crate) fn on_nanny_started(&mut self) {
        self.starting_nannies.count -= 1;
        if self.starting_nannies.count == 0 {
            for (message, answer) in std::mem::take(&mut self.starting_nannies.waiting) {
                self.tell_nannies(message, answer);
            }
        }
    }

    /// Asks all nannies the same, once none of them is starting.
    pub(crate) fn tell_nannies(&mut self, message: Value, answer: Answer) {
        if self.starting_nannies.count > 0 {
            self.starting_nannies.waiting.push((message, answer));
            return;
        }
        let targets = self.targets_of_all(true);
        call::broadcast(self.pool.clone(), targets, message, OnError::Raise, answer);
    }
}
