//! What workers, Clients and we say to one another, one variant an op, named as the op.
//!
//! An op that is in no table is `Unknown`: the caller counts it and goes on.

mod compute_task;
pub mod from_client;
pub mod from_worker;
pub mod inventory;
mod mirror;
mod quick;
pub mod rpc;
mod task_finished;
pub mod to_client;
pub mod to_worker;

pub use compute_task::{ComputeTask, ComputeTaskView};
pub use from_client::{FromClient, UpdateGraph};
pub use from_worker::{FromWorker, TaskErred};
pub use inventory::{Inventory, StartedRun};
pub use rpc::{Ask, Request};
pub use task_finished::TaskFinished;
pub use to_client::ToClient;
pub use to_worker::ToWorker;

use super::encode::Encoder;
use crate::dask::TaskKey;

/// Begins a message of `fields` fields beside `op`.
fn head(encoder: &mut Encoder, op: &str, fields: usize) {
    encoder.map(1 + fields);
    named_text(encoder, "op", op);
}

fn named_text(encoder: &mut Encoder, name: &str, text: &str) {
    encoder.text(name);
    encoder.text(text);
}

fn named_key(encoder: &mut Encoder, key: &TaskKey) {
    encoder.text("key");
    encoder.key(key);
}

fn named_keys(encoder: &mut Encoder, keys: &[TaskKey]) {
    encoder.text("keys");
    encoder.keys(keys);
}
