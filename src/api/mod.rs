//! What users write and read: the CRD types, their limits, conditions, reasons and labels.
//!
//! Types and constants only: what a spec means is decided in `controller::validate`, what a status says in
//! `controller::status`. `crds/` and the chart's copy are generated from here (`make generate`).

pub mod conditions;
pub mod labels;
mod schema;
mod source;
mod spec;
mod status;

pub use schema::crds;
pub use source::{Entrypoint, InlineTask, KeySelector, PythonFrom, Source};
pub use spec::{Actors, Input, LabelRequirement, Override, PersistedCollection, PersistedCollectionSpec, Persistence, Workers};
pub use status::{
    FailureStatus, LostWorkerStatus, OutputStatus, PersistedCollectionStatus, Phase, PriorityStatus, ReplicasStatus,
    RetriesStatus, TaskRetriesStatus, TasksStatus, WorkerStatus,
};

/// The limits that the schema and `controller::validate` both hold to.
pub mod limits {
    pub use super::source::{
        ARGUMENTS_MAX, CALLABLE_LENGTH_MAX, KEY_LENGTH_MAX, NAME_LENGTH_MAX, SOURCE_BYTES_MAX, TASK_KEY_LENGTH_MAX, TASKS_MAX,
    };
    pub use super::spec::{
        ACTOR_TASKS_MAX, AMOUNT_MAX, COLLECTIONS_MAX, EXPRESSION_VALUES_MAX, FIFO_TIMEOUT_LENGTH_MAX, FIFO_TIMEOUT_SECONDS_MAX,
        FREE_FORM_BYTES_MAX, FREE_FORM_PROPERTIES_MAX, INPUTS_MAX, LABEL_EXPRESSIONS_MAX, LABELS_MAX, OVERRIDE_KEYS_LENGTH_MAX,
        OVERRIDES_MAX, PRIORITY_MAX, REPLICAS_MAX, RESOURCES_MAX, RETRIES_MAX, WORKER_NAMES_MAX,
    };
    pub use super::status::{
        FAILURES_MAX, LOST_WORKERS_MAX, OUTPUTS_MAX, RETRIED_MAX, STATUS_EXCEPTION_LENGTH_MAX, STATUS_KEY_LENGTH_MAX,
        STATUS_MESSAGE_LENGTH_MAX, STATUS_TRACEBACK_LENGTH_MAX, WORKERS_MAX,
    };
}
