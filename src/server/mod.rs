//! One namespace's scheduler: an engine with its listener.
//!
//! Turns messages into stimuli and instructions into messages, answers RPCs, and has graphs built on workers.
//! Owns connections, Clients and datasets; decides nothing about tasks, which is the engine's.

mod build_request;
mod handle;

pub use build_request::{Actors, BuildRequest, InlineTask, Input, Source};
pub use handle::{BuildError, CollectionRequest, Handle, OutputInfo, Report, Stage};
