//! What a collection's status says, and when it is written.
//!
//! `compute` is pure: the same view gives the same status, but for the times of transitions. `judge` decides the conditions,
//! `workers` explains why no worker takes a task, `figures` fills in the numbers. Writing is in `write`.

mod figures;
mod judge;
#[cfg(test)]
mod tests;
mod workers;
mod write;

use k8s_openapi::jiff::Timestamp;

use crate::api::conditions::{self, Setting, Status, find, reasons, set_condition};
use crate::api::{PersistedCollectionStatus, Phase};
use crate::controller::{dereference, validate};
use crate::engine::Requirements;
use crate::pods::PodFacts;
use crate::server::Report;

pub(super) use write::{Written, write};

/// All that a status is made from.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub generation: i64,
    pub situation: Situation<'a>,
    /// What the server said last, whatever the situation.
    pub report: Option<&'a Report>,
    /// The source is in a Secret: nothing of its text may be shown.
    pub is_confidential: bool,
    pub requirements: Option<&'a Requirements>,
    /// The pods of the namespace.
    pub pods: &'a [PodFacts],
}

/// How far the object has come.
#[derive(Clone, Copy, Debug)]
pub enum Situation<'a> {
    /// Its spec is good; nothing was done yet.
    Taken,
    Invalid(&'a validate::Error),
    SourceAbsent(&'a dereference::Absence),
    /// The namespace has no server, and that for longer than starting one takes.
    NoScheduler,
    /// The server has this generation: `View::report` says how it goes.
    Reported,
    Releasing,
}

/// The status that a view calls for, after `previous`.
pub fn compute(previous: Option<&PersistedCollectionStatus>, view: &View<'_>, now: Timestamp) -> PersistedCollectionStatus {
    let mut status = previous.cloned().unwrap_or_default();
    let verdict = judge::judge(previous, view);
    let (phase, takes_generation) = (verdict.phase, verdict.takes_generation);
    if !verdict.is_replicating() {
        status.conditions.retain(|condition| condition.type_ != conditions::REPLICATED);
    }
    for setting in verdict.settings() {
        set_condition(&mut status.conditions, setting, view.generation, now);
    }
    for type_ in conditions::ALL {
        if find(&status.conditions, type_).is_none() {
            let message = "not known yet".to_owned();
            let setting = Setting { type_, status: Status::Unknown, reason: reasons::ACCEPTED, message };
            set_condition(&mut status.conditions, setting, view.generation, now);
        }
    }
    let goes_on = status.observed_generation == Some(view.generation);
    if takes_generation {
        // It never decreases, though a cached object may be older than what was written.
        status.observed_generation = status.observed_generation.max(Some(view.generation));
    }
    status.phase = Some(phase);
    if !matches!(view.situation, Situation::Taken) {
        figures::fill(&mut status, view.report, view.is_confidential, goes_on);
    }
    status
}

/// Whether outputs were all in memory by the last status, for this same generation.
fn was_persisted(previous: Option<&PersistedCollectionStatus>, generation: i64) -> bool {
    previous.is_some_and(|status| {
        matches!(status.phase, Some(Phase::Persisted | Phase::Degraded)) && status.observed_generation == Some(generation)
    })
}
