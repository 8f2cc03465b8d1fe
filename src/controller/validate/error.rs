//! What can be wrong with a spec.

use thiserror::Error as ThisError;

use crate::api::limits::{AMOUNT_MAX, COLLECTIONS_MAX, PRIORITY_MAX, REPLICAS_MAX, RETRIES_MAX};

/// Why a spec is refused.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
#[error("{field}: {problem}")]
pub struct Error {
    /// The field, as `kubectl explain` names it.
    pub field: String,
    pub problem: Problem,
}

/// What is wrong with a field: what was found and what would do.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
pub enum Problem {
    #[error("must have exactly one of python, pythonFrom, entrypoint and tasks; has {}", if found.is_empty() { "none" } else { found })]
    SourceCount { found: String },
    #[error("must have exactly one of configMapKeyRef and secretKeyRef")]
    ReferenceCount,
    #[error("refers to a ConfigMap or Secret, and there is none to read here; write the text into python instead")]
    NotResolved,
    #[error("is empty; write Python text that defines the names in spec.collections")]
    EmptySource,
    #[error("has a null byte, which Python text cannot have")]
    NullByte,
    #[error("has {found} bytes, more than {max}")]
    TooLong { found: usize, max: usize },
    #[error("has {found} entries, more than {max}")]
    TooMany { found: usize, max: usize },
    #[error("has `{found}` twice")]
    Duplicate { found: String },
    #[error("has a value named `{found}`: YAML takes the bare words y, n, yes, no, on and off for booleans; quote the name")]
    BooleanName { found: String },

    #[error("must name at least one variable of the source to persist, for example [daily]")]
    NoCollections,
    #[error("`{found}` is not the name of a Python variable: letters, digits and underscores, not starting with a digit")]
    NotAVariable { found: String },
    #[error("`{found}` is a keyword of Python and cannot name a variable")]
    Keyword { found: String },
    #[error("would hide `params`, which holds spec.parameters; choose another name")]
    ShadowsParameters,
    #[error("names this collection itself; it can only read others")]
    ReadsItself,
    #[error(
        "`{found}` is not the name of a Kubernetes object: lower-case letters, digits, `-` and `.`, with a letter or digit at both ends"
    )]
    NotAnObjectName { found: String },
    #[error(r#"`{found}` is not "module:name", for example "acme.pipelines:build""#)]
    NotCallable { found: String },
    #[error("is empty")]
    Empty,
    #[error("does nothing: spec.source.tasks are not optimised")]
    NotOptimised,

    #[error("`{found}` is no key of spec.source.tasks{}", did_you_mean(closest.as_deref()))]
    UnknownTask { found: String, closest: Option<Box<str>> },
    #[error("takes the result of `{found}`, which is no key of spec.source.tasks{}", did_you_mean(closest.as_deref()))]
    UnknownReference { found: String, closest: Option<Box<str>> },
    #[error("takes the input `{found}`, which spec.inputs does not have")]
    UnknownInput { found: String },
    #[error("tasks need each other in a circle: {circle}")]
    Cycle { circle: String },
    #[error("a key has control characters, or spaces at its ends")]
    BadKey,
    #[error(
        "has {found} tasks that no other task takes; an object has at most {COLLECTIONS_MAX} outputs: name those to keep in spec.collections"
    )]
    TooManySinks { found: usize },

    #[error(
        "says nothing: give at least one of retries, priority, workers, allowOtherWorkers and resources for the tasks that match"
    )]
    EmptyOverride,
    #[error("{what}")]
    NotAPattern { what: String },

    #[error("needs workers: without matchLabels, matchExpressions or names there is nothing to prefer")]
    NothingToPrefer,
    #[error(r#"`{found}` is not the key of a label, for example "disk" or "topology.kubernetes.io/zone""#)]
    NotALabel { found: String },
    #[error(
        "`{found}` is not the value of a label: at most 63 letters, digits and any of _.-, with a letter or digit at both ends"
    )]
    NotALabelValue { found: String },
    #[error("`{found}` is none of In, NotIn, Exists and DoesNotExist")]
    UnknownOperator { found: String },
    #[error("operators In and NotIn need values; Exists and DoesNotExist take none")]
    OperatorValues,
    #[error("`{found}` is not the name of a resource, for example GPU: letters, digits and any of _./:-, at most 63")]
    NotAResource { found: String },
    #[error("{what}")]
    Amount { what: String },
    #[error("{found} is not from 0 to {RETRIES_MAX}")]
    Retries { found: i64 },
    #[error("{found} is not from 1 to {REPLICAS_MAX}")]
    Replicas { found: i64 },
    #[error("{found} is not a number from -{PRIORITY_MAX:e} to {PRIORITY_MAX:e}")]
    Priority { found: String },
    #[error("`{found}` {what}")]
    Duration { found: String, what: String },
    #[error("`{found}` is longer than a year (365 days)")]
    DurationTooLong { found: String },
}

fn did_you_mean(closest: Option<&str>) -> String {
    closest.map_or_else(String::new, |closest| format!(" (did you mean `{closest}`?)"))
}

impl Error {
    pub(super) fn new(field: impl Into<String>, problem: Problem) -> Self {
        Self { field: field.into(), problem }
    }
}

// `Amount` says the same limit in its own words.
const _: () = assert!(AMOUNT_MAX == crate::engine::Amount::MAX.as_f64());
