//! Decides which worker runs which task, when, and what is kept.
//!
//! Does no I/O, reads no clock and draws no random number of its own: the same stimuli at the same times give the
//! same instructions, always. What arrives from peers cannot make it panic: a stimulus that makes no sense in the
//! present state is counted and ignored.
//!
//! ```text
//! stimuli ──► handle_stimulus ──► instructions          getters: summary, who_has, story, …
//! ```

mod graph;
mod instruction;
mod requirements;
mod stimulus;
mod summary;

pub use graph::{Annotations, Graph, GraphTask};
pub use instruction::{ComputeTask, Instruction};
pub use requirements::{Amount, AmountError, LabelExpression, Operator, Requirements, Resources, WorkerSelector};
pub use stimulus::{ClientId, CollectionId, Exception, Failure, Millis, RunId, Stimulus, WorkerId, WorkerProfile, WorkerStatus};
pub use summary::{FailureSummary, OutputSummary, RetrySummary, Summary, TaskCounts, Unrunnable, WorkerShare};
