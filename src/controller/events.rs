//! Kubernetes Events for what a person wants to see: transitions of the status, and no repeats.

use std::sync::{Mutex, PoisonError};

use kube::runtime::events::{self, Event, EventType, Reporter};
use kube::{Client, Resource, ResourceExt};

use crate::api::conditions::{self, find, reasons};
use crate::api::labels::EVENT_CONTROLLER;
use crate::api::{LostWorkerStatus, PersistedCollection, PersistedCollectionStatus};

/// The API server takes no longer note.
const NOTE_BYTES_MAX: usize = 1024;
/// Events that are remembered, so that another one of the same kind on the same object only counts it up.
const REMEMBERED_MAX: usize = 256;

/// One thing to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub is_warning: bool,
    pub reason: String,
    pub action: &'static str,
    pub text: String,
}

/// In the order of a collection's way, so that Events read like a story.
const ORDER: [&str; 4] =
    [conditions::SOURCE_RESOLVED, conditions::GRAPH_ACCEPTED, conditions::WORKERS_AVAILABLE, conditions::READY];

/// What there is to tell when one status follows another. Pure.
pub fn notes(previous: Option<&PersistedCollectionStatus>, next: &PersistedCollectionStatus) -> Vec<Note> {
    let before = previous.map(|status| status.conditions.as_slice()).unwrap_or_default();
    let mut notes: Vec<Note> = Vec::new();
    for type_ in ORDER {
        let Some(condition) = find(&next.conditions, type_) else { continue };
        let old = find(before, type_);
        let is_new = old.is_none_or(|old| old.status != condition.status || old.reason != condition.reason);
        let says_else = old.is_none_or(|old| old.message != condition.message);
        let worth = match (type_, condition.status.as_str(), condition.reason.as_str()) {
            (conditions::READY, "True", _) => is_new.then_some((false, "Persist")),
            (conditions::READY, "False", reasons::RECOMPUTING) => is_new.then_some((true, "Recompute")),
            (conditions::READY, "False", reasons::TASKS_FAILED) => is_new.then_some((true, "Compute")),
            (conditions::READY, "False", reasons::INVALID_SPEC) => (is_new || says_else).then_some((true, "Validate")),
            (conditions::SOURCE_RESOLVED, "False", _) => is_new.then_some((true, "Dereference")),
            (conditions::GRAPH_ACCEPTED, "True", reasons::INPUT_MISSING) => (is_new || says_else).then_some((true, "Build")),
            (conditions::GRAPH_ACCEPTED, "True", _) => is_new.then_some((false, "Build")),
            // An invalid spec is told by Ready.
            (conditions::GRAPH_ACCEPTED, "False", reasons::INVALID_SPEC) => None,
            (conditions::GRAPH_ACCEPTED, "False", _) => (is_new || says_else).then_some((true, "Build")),
            (conditions::WORKERS_AVAILABLE, "False", _) => is_new.then_some((true, "Schedule")),
            _ => None,
        };
        if let Some((is_warning, action)) = worth {
            notes.push(Note { is_warning, reason: condition.reason.clone(), action, text: first_line(&condition.message) });
        }
    }
    let known = previous.map(|status| status.lost_workers.as_slice()).unwrap_or_default();
    for LostWorkerStatus { pod, reason, message } in next.lost_workers.iter().filter(|lost| !known.contains(lost)) {
        let text = if message.is_empty() { format!("{pod}: {reason}") } else { format!("{pod}: {reason}: {message}") };
        notes.push(Note { is_warning: true, reason: "WorkerLost".to_owned(), action: "Schedule", text });
    }
    notes
}

/// Tracebacks are for the condition.
fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().to_owned()
}

/// That a deleted collection has let go of its memory.
pub(super) fn released(timed_out: bool) -> Note {
    let text = if timed_out {
        "the scheduler did not confirm in 60 s that the memory of the workers is free; the object goes all the same"
    } else {
        "the memory of the workers is free"
    };
    Note { is_warning: timed_out, reason: "Released".to_owned(), action: "Release", text: text.to_owned() }
}

/// Publishes Events. kube's own remembers each for minutes; this one is taken anew when it remembers too many.
pub(super) struct Recorder {
    client: Client,
    reporter: Reporter,
    /// With how many it was asked to publish.
    current: Mutex<(events::Recorder, usize)>,
}

impl Recorder {
    /// `instance` is the operator's own pod.
    pub(super) fn new(client: Client, instance: Option<String>) -> Self {
        let reporter = Reporter { controller: EVENT_CONTROLLER.to_owned(), instance };
        let current = Mutex::new((events::Recorder::new(client.clone(), reporter.clone()), 0));
        Self { client, reporter, current }
    }

    fn current(&self) -> events::Recorder {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.1 == REMEMBERED_MAX {
            *current = (events::Recorder::new(self.client.clone(), self.reporter.clone()), 0);
        }
        current.1 += 1;
        current.0.clone()
    }
}

/// Publishes notes. One that cannot be published is logged and dropped: it is a courtesy.
pub(super) async fn publish(recorder: &Recorder, collection: &PersistedCollection, notes: Vec<Note>) {
    for Note { is_warning, reason, action, text } in notes {
        let event = Event {
            type_: if is_warning { EventType::Warning } else { EventType::Normal },
            reason,
            note: Some(shortened(text)),
            action: action.to_owned(),
            secondary: None,
        };
        if let Err(error) = recorder.current().publish(&event, &collection.object_ref(&())).await {
            let error = crate::error::chain(&error);
            tracing::debug!(name = collection.name_any(), reason = event.reason, error, "an event was not published");
        }
    }
}

/// For a note may not be long.
fn shortened(mut text: String) -> String {
    if text.len() > NOTE_BYTES_MAX {
        text.truncate(text.floor_char_boundary(NOTE_BYTES_MAX - '…'.len_utf8()));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::api::conditions::{Setting, Status, set_condition};

    fn status(settings: &[(&'static str, Status, &'static str, &str)]) -> PersistedCollectionStatus {
        let mut status = PersistedCollectionStatus::default();
        for &(type_, state, reason, message) in settings {
            let setting = Setting { type_, status: state, reason, message: message.to_owned() };
            set_condition(&mut status.conditions, setting, 1, Timestamp::UNIX_EPOCH);
        }
        status
    }

    #[test]
    fn a_transition_is_told_once() {
        let running = status(&[(conditions::READY, Status::False, reasons::RUNNING, "3 of 9")]);
        let persisted = status(&[(conditions::READY, Status::True, reasons::PERSISTED, "1.0 GiB")]);
        let told = notes(Some(&running), &persisted);
        assert_eq!(told.len(), 1);
        assert_eq!((told[0].is_warning, told[0].reason.as_str()), (false, "Persisted"));
        let later = status(&[(conditions::READY, Status::True, reasons::PERSISTED, "1.1 GiB")]);
        assert_eq!(notes(Some(&persisted), &later), []);
    }

    #[test]
    fn a_worker_that_is_lost_is_told_once_with_the_reason() {
        let lost = LostWorkerStatus {
            pod: "w-0".to_owned(),
            reason: "OOMKilled".to_owned(),
            message: "its container took more memory than its limit".to_owned(),
        };
        let after = PersistedCollectionStatus { lost_workers: vec![lost], ..PersistedCollectionStatus::default() };
        let told = notes(None, &after);
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].text, "w-0: OOMKilled: its container took more memory than its limit");
        assert_eq!(notes(Some(&after), &after), []);
    }

    #[test]
    fn progress_is_no_event() {
        let before = status(&[(conditions::READY, Status::False, reasons::RUNNING, "3 of 9")]);
        let after = status(&[(conditions::READY, Status::False, reasons::RUNNING, "4 of 9")]);
        assert_eq!(notes(Some(&before), &after), []);
        assert_eq!(notes(None, &before), []);
    }

    #[test]
    fn another_mistake_in_the_spec_is_told_again() {
        let invalid = |message| {
            status(&[
                (conditions::READY, Status::False, reasons::INVALID_SPEC, message),
                (conditions::GRAPH_ACCEPTED, Status::False, reasons::INVALID_SPEC, message),
            ])
        };
        assert_eq!(notes(None, &invalid("a")).len(), 1);
        assert_eq!(notes(Some(&invalid("a")), &invalid("a")), []);
        assert_eq!(notes(Some(&invalid("a")), &invalid("b")).len(), 1);
    }
}
