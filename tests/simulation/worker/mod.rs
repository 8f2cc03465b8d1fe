//! Stock workers.

mod event;
mod handle;
mod machine;
mod process;
mod sequences;
mod task;
mod work;

pub(crate) use event::Event;
pub(crate) use process::{Effect, Process, gpus};
pub(crate) use task::Value;
