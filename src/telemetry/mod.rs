//! What others may see of the process: logs, health and metrics.

mod http;
mod logs;
mod metrics;

pub use http::{Health, serve};
pub use logs::{LogFormat, log_to_stdout, log_to_terminal};
pub use metrics::registry;
