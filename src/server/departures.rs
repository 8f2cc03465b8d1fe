//! Moves what is on workers whose pods or nodes are going, before they go.
//!
//! ```text
//! the pod or node is going ─► the engine has others fetch ─┬► nothing is only there, and the pod is being ended: close
//!                 ▲                          │             └► it stays, idle, until it is ended or stays after all
//!                 └─ it goes on no further ──┘
//! ```
//!
//! How much time there is, the pod decides: a `preStop` hook that sleeps gives it (docs/install.md). What was not moved by
//! then is computed again.

use std::time::{Duration, Instant};

use tracing::info;

use crate::engine::{Stimulus, WorkerId, WorkerStatus};
use crate::server::admission::Departure;
use crate::server::namespace::Namespace;

/// Others are told again to fetch what has not come in this time: who was to fetch it may be gone.
const NUDGE_AFTER: Duration = Duration::from_secs(3);

/// A worker that is going.
#[derive(Debug)]
pub(crate) struct Departing {
    departure: Departure,
    /// How many results were only there when that last changed, or others were told to fetch them.
    sole: usize,
    changed: Instant,
}

impl Namespace {
    /// Looks who is going. What may mean nothing counts only where others stay.
    pub(crate) fn look_at_departures(&mut self) {
        let of_pod = |pod: Option<&str>| pod.and_then(|pod| self.admission.departure(pod));
        let departures: Vec<(WorkerId, Option<Departure>)> =
            self.workers.iter().map(|(id, worker)| (id, of_pod(worker.pod()))).collect();
        let stays = |(id, departure): &(WorkerId, Option<Departure>)| {
            let is_running = self.engine.worker(*id).is_some_and(|worker| worker.status == WorkerStatus::Running);
            departure.is_none() && is_running
        };
        let any_stays = departures.iter().any(stays);
        for (id, departure) in departures {
            self.set_departure(id, departure.filter(|departure| departure.is_certain || any_stays));
        }
    }

    fn set_departure(&mut self, id: WorkerId, departure: Option<Departure>) {
        let Some(worker) = self.workers.entries.get_mut(&id) else { return };
        if worker.departing.as_ref().map(|departing| &departing.departure) == departure.as_ref() {
            return;
        }
        let leaving = departure.is_some();
        let is_news = worker.departing.is_some() != leaving;
        match &departure {
            Some(Departure { reason, .. }) => {
                info!(worker = %worker.name, %reason, "a worker is going; others take what it holds")
            }
            None => info!(worker = %worker.name, "a worker stays after all"),
        }
        worker.departing = departure.map(|departure| Departing { departure, sole: 0, changed: Instant::now() });
        if is_news {
            self.stimulate(Stimulus::WorkerLeaving { worker: id, leaving });
            self.start_builds();
        }
    }

    /// Looks how far those that are going have come.
    pub(crate) fn go_on_departing(&mut self) {
        let going: Vec<WorkerId> =
            self.workers.iter().filter(|(_, worker)| worker.departing.is_some()).map(|(id, _)| id).collect();
        for id in going {
            let sole = self.engine.held_for_last(id);
            let is_idle = self.engine.worker(id).is_some_and(|worker| worker.processing == 0);
            let Some(worker) = self.workers.entries.get_mut(&id) else { continue };
            let is_closing = worker.is_leaving;
            let Some(departing) = &mut worker.departing else { continue };
            if sole == 0 {
                // What it has brought from another scheduler may be asked for yet.
                let is_done = is_idle && !self.reunion.holds() && !self.engine.holds_actors(id);
                if is_done && !is_closing && departing.departure.is_ending {
                    info!(worker = %worker.name, "others have what a worker held whose pod is being ended");
                    self.workers.close(id, "its pod is being ended, and others have what it held");
                }
            } else if sole != departing.sole {
                (departing.sole, departing.changed) = (sole, Instant::now());
            } else if departing.changed.elapsed() > NUDGE_AFTER {
                departing.changed = Instant::now();
                self.stimulate(Stimulus::WorkerLeaving { worker: id, leaving: true });
            }
        }
    }
}
