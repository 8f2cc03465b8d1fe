//! Begins anew: workers are ended and started again by their nannies, and Clients forget their futures.
//!
//! What is declared stays: collections are computed again on the new workers.
//!
//! Source: distributed 2026.8.0, scheduler.py: `restart`, `restart_workers`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::time::timeout_at;
use tracing::{info, warn};

use crate::comm::Pool;
use crate::dask::WorkerAddress;
use crate::engine::{Stimulus, WorkerId};
use crate::server::call::{self, pass_on};
use crate::server::event::{Answer, Event};
use crate::server::namespace::Namespace;
use crate::server::requests::Reply;
use crate::wire::document::{DocumentError, Fields};
use crate::wire::messages::{ToClient, rpc};
use crate::wire::pickle::Object;
use crate::wire::value::Value;

/// How long a restart may take when the caller does not say.
const TIMEOUT_SECONDS: f64 = 30.0;
/// No restart may take longer.
const TIMEOUT_SECONDS_MAX: f64 = 86_400.0;

/// Those that wait for new workers.
#[derive(Debug, Default)]
pub(crate) struct Restarts(Vec<Restart>);

/// One call, until it is answered.
#[derive(Debug)]
pub(crate) struct Restart {
    /// What is said of each worker.
    outcome: Vec<(WorkerAddress, Outcome)>,
    /// So many were there, and are waited for.
    workers: usize,
    deadline: Instant,
    how: How,
    /// The caller is told nothing of single workers.
    of_all: bool,
    answer: Answer,
}

/// What a caller says of how it wants it done.
#[derive(Clone, Copy, Debug)]
struct How {
    seconds: f64,
    /// For workers to come back.
    waits: bool,
    raises: bool,
}

impl How {
    fn read(fields: &Fields<'_>) -> Result<Self, DocumentError> {
        let seconds = fields.optional_number("timeout")?.unwrap_or(TIMEOUT_SECONDS);
        Ok(Self {
            seconds: seconds.clamp(0.0, TIMEOUT_SECONDS_MAX),
            waits: fields.optional_boolean("wait_for_workers")?.unwrap_or(true),
            raises: fields.optional_text("on_error")?.is_none_or(|text| text == "raise"),
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Ok,
    /// Without a nanny nobody starts it again.
    Removed,
    TimedOut,
}

impl Outcome {
    const fn text(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::Removed => "removed",
            Self::TimedOut => "timed out",
        }
    }
}

impl Restart {
    fn new(how: How, of_all: bool, workers: usize, answer: Answer) -> Self {
        let deadline = Instant::now() + Duration::from_secs_f64(how.seconds);
        Self { outcome: Vec::new(), workers, deadline, how, of_all, answer }
    }

    fn succeed(self) {
        let outcome = self.outcome.iter().map(|(worker, outcome)| (worker.as_str().into(), outcome.text().into()));
        let outcome = if self.of_all { Value::Nil } else { Value::Map(outcome.collect()) };
        call::reply(self.answer, &outcome);
    }

    fn time_out(self, text: &str) {
        warn!(text, "workers were not restarted in time");
        if self.how.raises {
            call::reply(self.answer, &rpc::failed(&Object::timeout_error(text), text));
        } else {
            self.succeed();
        }
    }
}

impl Namespace {
    /// The RPC `restart`: forgets what Clients want, then restarts all workers.
    pub(crate) fn restart(&mut self, fields: &Fields<'_>) -> Result<Reply, DocumentError> {
        let how = How::read(fields)?;
        for client in self.clients.all() {
            self.clients.drop_graphs(client);
            self.stimulate(Stimulus::ClientLeft { client });
            self.clients.tell(client, &ToClient::Restart);
        }
        let all = self.workers.iter().map(|(id, _)| id).collect();
        Ok(Reply::later(move |namespace, answer| {
            namespace.end_workers(Restart::new(how, true, namespace.workers.len(), answer), all);
        }))
    }

    /// The RPC `restart_workers`: all of them, or those named.
    pub(crate) fn restart_workers(&mut self, fields: &Fields<'_>) -> Result<Reply, DocumentError> {
        let (how, named) = (How::read(fields)?, self.targets(fields, false)?);
        let chosen = named.iter().filter_map(|(address, _)| self.workers.by_address(address)).collect();
        Ok(Reply::later(move |namespace, answer| {
            namespace.end_workers(Restart::new(how, false, namespace.workers.len(), answer), chosen);
        }))
    }

    fn end_workers(&mut self, mut restart: Restart, chosen: Vec<WorkerId>) {
        let mut killed = Vec::new();
        for id in chosen {
            let Some(worker) = self.workers.get(id) else { continue };
            let (address, nanny) = (worker.address.clone(), worker.nanny.clone());
            if let Some(nanny) = nanny {
                // It goes because it is told to: none of its tasks is to blame.
                self.workers.expect_to_leave(id);
                killed.push((id, nanny));
                restart.outcome.push((address, Outcome::Ok));
            } else {
                warn!(%address, "a worker without a nanny ends and is not started again");
                self.workers.close(id, "restart");
                self.on_worker_gone(id);
                restart.outcome.push((address, Outcome::Removed));
            }
        }
        let (pool, events) = (Arc::clone(&self.pool), self.events.clone());
        self.pool.spawn(async move {
            let alive = kill(&pool, &killed, restart.deadline).await;
            // The loop has ended when nobody takes it.
            let _ = events.send(Event::Killed { restart, alive }).await;
        });
    }

    /// Nannies have ended their workers, but for those still alive.
    pub(crate) fn on_killed(&mut self, mut restart: Restart, alive: &[WorkerId]) {
        for id in alive {
            let Some(worker) = self.workers.get(*id) else { continue };
            let entry = restart.outcome.iter_mut().find(|(address, _)| *address == worker.address);
            if let Some((_, outcome)) = entry {
                *outcome = Outcome::TimedOut;
            }
            self.workers.close(*id, "restart");
            self.on_worker_gone(*id);
        }
        // The comms of the others end with them.
        if !alive.is_empty() && restart.how.raises {
            let nannies = restart.outcome.iter().filter(|(_, outcome)| *outcome != Outcome::Removed).count();
            let text = format!("{}/{nannies} nanny worker(s) did not shut down within {}s", alive.len(), restart.how.seconds);
            return restart.time_out(&text);
        }
        if restart.how.waits {
            self.restarts.0.push(restart);
            self.end_restarts();
        } else {
            restart.succeed();
        }
    }

    /// Answers the calls whose workers are back, and those whose time is up.
    pub(crate) fn end_restarts(&mut self) {
        let (there, now) = (self.workers.len(), Instant::now());
        for restart in self.restarts.0.extract_if(.., |restart| restart.workers <= there || restart.deadline <= now) {
            if restart.workers <= there {
                info!(workers = there, "workers were restarted");
                restart.succeed();
                continue;
            }
            let removed = restart.outcome.iter().filter(|(_, outcome)| *outcome == Outcome::Removed).count();
            let mut text = format!(
                "Waited for {} worker(s) to reconnect after restarting but, after {}s, {} have not returned. Consider a \
                 longer timeout, or `wait_for_workers=False`.",
                restart.outcome.len(),
                restart.how.seconds,
                restart.workers - there
            );
            if removed > 0 {
                text += &format!(
                    " The {removed} worker(s) not using Nannies were just shut down instead of restarted (restart is only \
                     possible with Nannies), unless something else starts them again."
                );
            }
            restart.time_out(&text);
        }
    }
}

/// Has nannies end their workers; gives those that have not.
async fn kill(pool: &Pool, killed: &[(WorkerId, WorkerAddress)], deadline: Instant) -> Vec<WorkerId> {
    let message = Value::map([("op", "kill".into()), ("reply", true.into()), ("reason", "mainstay-restart".into())]);
    let calls = killed.iter().map(|(id, nanny)| {
        let message = &message;
        async move {
            let said = timeout_at(deadline.into(), pass_on(pool, nanny, message)).await;
            (!matches!(said, Ok(Ok(_)))).then_some(*id)
        }
    });
    join_all(calls).await.into_iter().flatten().collect()
}
