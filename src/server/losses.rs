//! Remembers which workers were lost with something of a collection, and why.
//!
//! A comm ends before the API server says how its container did: for a moment the cause is not known, and nothing is said.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::engine::{CollectionId, WorkerId};
use crate::server::admission::End;
use crate::server::handle::LostWorker;
use crate::server::namespace::Namespace;

/// Losses that are remembered, of all collections together.
const LOSSES_MAX: usize = 64;
/// Losses that a report lists.
const LISTED_MAX: usize = 8;
/// A cause that is not known by then will not be.
const PATIENCE: Duration = Duration::from_secs(10);

/// The last losses, the latest last.
#[derive(Debug, Default)]
pub(crate) struct Losses(VecDeque<Loss>);

#[derive(Debug)]
struct Loss {
    worker: LostWorker,
    pod: Option<String>,
    /// How its pod had ended when the worker registered: a container that is started again keeps the last end.
    end_before: Option<End>,
    lost: Instant,
    is_settled: bool,
    collections: BTreeSet<CollectionId>,
}

impl Losses {
    /// What a collection lost, the latest last.
    pub(crate) fn of(&self, collection: CollectionId) -> Vec<LostWorker> {
        let settled = self.0.iter().filter(|loss| loss.is_settled && loss.collections.contains(&collection));
        let mut latest: Vec<LostWorker> = settled.rev().take(LISTED_MAX).map(|loss| loss.worker.clone()).collect();
        latest.reverse();
        latest
    }
}

impl Namespace {
    /// Notes a worker that is about to be forgotten, if something goes with it.
    pub(crate) fn note_loss(&mut self, id: WorkerId) {
        let is_lost = self.engine.held_alone(id) > 0 || self.engine.worker(id).is_some_and(|worker| worker.processing > 0);
        let Some(worker) = self.workers.get(id).filter(|_| is_lost) else { return };
        let collections: BTreeSet<CollectionId> = self.engine.collections_on(id).collect();
        if collections.is_empty() {
            return;
        }
        self.losses.0.push_back(Loss {
            worker: LostWorker { worker: worker.pod().unwrap_or(&worker.name).to_owned(), end: None },
            pod: worker.pod().map(str::to_owned),
            end_before: worker.end_before.clone(),
            lost: Instant::now(),
            is_settled: false,
            collections,
        });
        self.losses.0.drain(..self.losses.0.len().saturating_sub(LOSSES_MAX));
        self.settle_losses();
    }

    /// A worker that was taken for lost has come back, with all that it had.
    pub(crate) fn take_back_loss(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get(id) else { return };
        let shown = worker.pod().unwrap_or(&worker.name);
        self.losses.0.retain(|loss| loss.is_settled || loss.worker.worker != shown);
    }

    /// Asks for the causes that are not known yet.
    pub(crate) fn settle_losses(&mut self) {
        for loss in self.losses.0.iter_mut().filter(|loss| !loss.is_settled) {
            let end = loss.pod.as_deref().and_then(|pod| self.admission.end(pod));
            loss.worker.end = end.filter(|end| Some(end) != loss.end_before.as_ref());
            let is_hopeless = loss.pod.is_none() || loss.lost.elapsed() > PATIENCE;
            loss.is_settled = loss.worker.end.is_some() || is_hopeless;
            if loss.is_settled {
                loss.collections.iter().for_each(|id| self.collections.report_again(*id));
            }
        }
    }
}
