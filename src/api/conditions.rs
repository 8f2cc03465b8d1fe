//! Condition types and reasons, and the one way to set a condition.
//!
//! `Reconciling` and `Stalled` are abnormal-true as kstatus has them; all others are good when `True`. The comment of each
//! reason says what to do about it: the reference in `docs/` is made of these.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use super::status::STATUS_MESSAGE_LENGTH_MAX;

/// All outputs are in memory. This is what to wait for: `kubectl wait --for=condition=Ready pcol/NAME`.
pub const READY: &str = "Ready";
/// The operator is working towards the spec; nothing to do but wait.
pub const RECONCILING: &str = "Reconciling";
/// It cannot go on without a person: the reason says what is missing.
pub const STALLED: &str = "Stalled";
/// The text of the source was found.
pub const SOURCE_RESOLVED: &str = "SourceResolved";
/// A worker made the graph of the source, and the scheduler has it.
pub const GRAPH_ACCEPTED: &str = "GraphAccepted";
/// Every task has a running worker that may take it.
pub const WORKERS_AVAILABLE: &str = "WorkersAvailable";

/// There are as many copies of the outputs as spec.persistence asks for; only then is there this condition.
pub const REPLICATED: &str = "Replicated";

/// Every condition that any collection has, in the order of its way.
pub const ALL: [&str; 6] = [READY, RECONCILING, STALLED, SOURCE_RESOLVED, GRAPH_ACCEPTED, WORKERS_AVAILABLE];

/// Why a condition has its status.
pub mod reasons {
    /// All is as the spec says; nothing to do.
    pub const PERSISTED: &str = "Persisted";
    /// The operator has seen the object and looks into it; nothing to do.
    pub const ACCEPTED: &str = "Accepted";
    /// The tasks run; nothing to do.
    pub const RUNNING: &str = "Running";
    /// Outputs were lost with a worker and are computed again; nothing to do, but see why workers die if it goes on.
    pub const RECOMPUTING: &str = "Recomputing";
    /// A task failed with no retry left: see status.failures, mend the source or the data, or raise spec.retries.
    pub const TASKS_FAILED: &str = "TasksFailed";
    /// The object is being deleted and its memory freed; nothing to do.
    pub const RELEASING: &str = "Releasing";

    /// The spec cannot be what it is: the message names the field. Edit it.
    pub const INVALID_SPEC: &str = "InvalidSpec";

    /// The source is in the spec, or was found; nothing to do.
    pub const RESOLVED: &str = "Resolved";
    /// Create the ConfigMap or Secret, or correct spec.source.pythonFrom. It is picked up when it appears.
    pub const SOURCE_NOT_FOUND: &str = "SourceNotFound";
    /// The ConfigMap or Secret is there, the key is not: the message lists the keys of a ConfigMap.
    pub const SOURCE_KEY_NOT_FOUND: &str = "SourceKeyNotFound";
    /// Its content is no UTF-8 text, is empty, or is too long, or the Secret is not of type `Opaque`: write Python text of at most
    /// 256 KiB there.
    pub const SOURCE_INVALID: &str = "SourceInvalid";
    /// The operator may not read it: give its ServiceAccount `get` on that ConfigMap or Secret.
    pub const SOURCE_FORBIDDEN: &str = "SourceForbidden";

    /// A worker makes the graph; nothing to do.
    pub const BUILDING: &str = "Building";
    /// The scheduler has the graph; nothing to do.
    pub const GRAPH_ACCEPTED: &str = "GraphAccepted";
    /// An output of another collection that this one reads is not there yet: the message names it and says why. Apply or
    /// mend that collection, or correct spec.inputs.
    pub const WAITING_FOR_INPUT: &str = "WaitingForInput";
    /// An input has gone since the graph was made of it. What is in memory stays, and is made anew when the input is back.
    pub const INPUT_MISSING: &str = "InputMissing";
    /// Collections read each other in a circle, which the message names: take one of these inputs away.
    pub const INPUT_CYCLE: &str = "InputCycle";
    /// No worker is there to make the graph: start workers in this namespace.
    pub const WAITING_FOR_WORKER: &str = "WaitingForWorker";
    /// The scheduler of the namespace is not up yet; nothing to do.
    pub const WAITING_FOR_SCHEDULER: &str = "WaitingForScheduler";
    /// The source is no Python: the message names the line.
    pub const SYNTAX_ERROR: &str = "SyntaxError";
    /// The source raised an exception: the message has it and the line.
    pub const SOURCE_RAISED: &str = "SourceRaised";
    /// The source imports what the worker image lacks: install it there, or correct the import.
    pub const IMPORT_FAILED: &str = "ImportFailed";
    /// The source does not define a name of spec.collections: correct one of them.
    pub const NAME_NOT_DEFINED: &str = "NameNotDefined";
    /// A value or a task of the source cannot be pickled: the message names it.
    pub const NOT_SERIALIZABLE: &str = "NotSerializable";
    /// The graph could not be made for another reason, which the message gives.
    pub const BUILD_FAILED: &str = "BuildFailed";

    /// Every output key in memory has its copies; nothing to do.
    pub const REPLICATED: &str = "Replicated";
    /// Copies are being made; nothing to do.
    pub const REPLICATING: &str = "Replicating";
    /// There are fewer workers than copies are wanted: start more, or lower spec.persistence.replicas.
    pub const TOO_FEW_WORKERS: &str = "TooFewWorkers";

    /// Workers that may run the tasks are there; nothing to do.
    pub const WORKERS_AVAILABLE: &str = "WorkersAvailable";
    /// The namespace has no worker at all: start some (`dask worker` pods that connect to tls://mainstay-scheduler:8786).
    pub const NO_WORKERS: &str = "NoWorkers";
    /// spec.workers matches no running worker: correct it, or label or start pods that it matches.
    pub const NO_MATCHING_WORKER: &str = "NoMatchingWorker";
    /// No worker that is allowed has this much of a resource: the message names the nearest. Lower the amount or start one.
    pub const INSUFFICIENT_RESOURCES: &str = "InsufficientResources";
    /// A worker came and was not let in: the message says why, mostly a release of distributed that is not supported.
    pub const WORKER_REFUSED: &str = "WorkerRefused";
    /// A pod that would be the worker cannot start: the message has the kubelet's words (image, crash, ...).
    pub const WORKER_POD_FAILING: &str = "WorkerPodFailing";
}

/// What to say of one condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    pub type_: &'static str,
    pub status: Status,
    pub reason: &'static str,
    pub message: String,
}

/// The status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    True,
    False,
    Unknown,
}

impl Status {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// Puts a condition among the others, in place.
///
/// # Guarantees
/// `lastTransitionTime` becomes `now` only when the status is another than before; a message that is too long is cut.
pub fn set_condition(conditions: &mut Vec<Condition>, setting: Setting, generation: i64, now: Timestamp) {
    let Setting { type_, status, reason, message } = setting;
    let mut condition = Condition {
        type_: type_.to_owned(),
        status: status.as_str().to_owned(),
        reason: reason.to_owned(),
        message: shortened(printable(message)),
        observed_generation: Some(generation),
        last_transition_time: Time(now),
    };
    match conditions.iter_mut().find(|existing| existing.type_ == type_) {
        Some(existing) => {
            if existing.status == condition.status {
                condition.last_transition_time = existing.last_transition_time.clone();
            }
            *existing = condition;
        }
        None => conditions.push(condition),
    }
}

/// The condition of this type.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// The text without what a terminal obeys: people write keys and names, and a message quotes them.
pub fn printable(mut text: String) -> String {
    text.retain(|character| character == '\n' || !character.is_control());
    text
}

/// Cuts at a character near the limit.
fn shortened(mut message: String) -> String {
    const MARK: &str = " …";
    if message.len() > STATUS_MESSAGE_LENGTH_MAX {
        message.truncate(message.floor_char_boundary(STATUS_MESSAGE_LENGTH_MAX - MARK.len()));
        message.push_str(MARK);
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(status: Status, reason: &'static str) -> Setting {
        Setting { type_: READY, status, reason, message: "m".to_owned() }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let mut conditions = Vec::new();
        set_condition(&mut conditions, ready(Status::Unknown, reasons::ACCEPTED), 1, at(10));
        set_condition(&mut conditions, ready(Status::Unknown, reasons::BUILDING), 2, at(20));
        assert_eq!(conditions.len(), 1);
        assert_eq!(conditions[0].last_transition_time, Time(at(10)));
        assert_eq!((conditions[0].reason.as_str(), conditions[0].observed_generation), (reasons::BUILDING, Some(2)));
        set_condition(&mut conditions, ready(Status::True, reasons::PERSISTED), 2, at(30));
        assert_eq!(conditions[0].last_transition_time, Time(at(30)));
    }

    #[test]
    fn a_message_commands_no_terminal() {
        let mut conditions = Vec::new();
        let setting =
            Setting { message: "task \x1b[2Ja\r failed\nat x".to_owned(), ..ready(Status::False, reasons::TASKS_FAILED) };
        set_condition(&mut conditions, setting, 1, at(0));
        assert_eq!(conditions[0].message, "task [2Ja failed\nat x");
    }

    #[test]
    fn a_long_message_is_cut_at_a_character() {
        let mut conditions = Vec::new();
        let setting = Setting { message: "ä".repeat(STATUS_MESSAGE_LENGTH_MAX), ..ready(Status::True, reasons::PERSISTED) };
        set_condition(&mut conditions, setting, 1, at(0));
        assert!(conditions[0].message.len() <= STATUS_MESSAGE_LENGTH_MAX);
        assert!(conditions[0].message.ends_with("ä …"));
    }
}
