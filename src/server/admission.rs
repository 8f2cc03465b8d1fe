//! Who may register as a worker, and what its surroundings add to what it says of itself.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::engine::Resources;

/// Knows the workers that are expected: pods in a cluster, anyone on a machine of one's own.
pub trait Admission: Send + Sync + 'static {
    /// Judges a worker by where its comm comes from, and by the name and the host that it states.
    fn admit(&self, peer: IpAddr, name: &str, host: &str) -> Verdict;

    /// The name of the worker that is expected at an address, if there is one and no other.
    fn expected_at(&self, _peer: IpAddr) -> Option<String> {
        None
    }

    /// What announces that a worker's pod is going.
    fn departure(&self, _pod: &str) -> Option<Departure> {
        None
    }

    /// How a worker's pod ended, or its container did last.
    fn end(&self, _pod: &str) -> Option<End> {
        None
    }

    /// Whether a worker's pod is being ended on purpose: then its tasks are not to blame for its end.
    fn is_ending(&self, _pod: &str) -> bool {
        false
    }

    /// The pods in which a worker runs, or is about to; `None` if that is not known.
    fn running_pods(&self) -> Option<Vec<String>> {
        None
    }
}

/// A planned end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Departure {
    /// Why, for the log.
    pub reason: String,
    /// The pod ends as soon as its container does.
    pub is_ending: bool,
    /// It will go; otherwise it may as well stay for ever.
    pub is_certain: bool,
}

/// Why a worker is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// One word: `OOMKilled`, `Evicted`, …
    pub reason: String,
    /// In words for a person; may be empty.
    pub message: String,
}

/// Whether a worker may register.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    Admitted(Facts),
    /// Nothing is known of it yet; asked again for a while, then refused with this reason.
    NotYet(String),
    Refused(String),
}

/// What is known of a worker beside its own words.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Facts {
    pub pod: Option<String>,
    /// The node of the pod.
    pub node: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// On top of the worker's own; the same name counts once, here.
    pub resources: Resources,
    /// Reserved for building.
    pub builder: bool,
}
