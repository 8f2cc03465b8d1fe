//! How many workers there should be, and which of them are the first to go: for those who scale them.
//!
//! Source: distributed 2026.8.0, scheduler.py: `adaptive_target`, `workers_to_close`.

use crate::engine::WorkerView;
use crate::server::namespace::Namespace;
use crate::wire::document::{DocumentError, Fields};
use crate::wire::messages::rpc;
use crate::wire::pickle::Object;
use crate::wire::value::Value;

/// What is left is to have so many times the memory that results take.
const MEMORY_RATIO: f64 = 2.0;

impl Namespace {
    /// The RPC `adaptive_target`: so many workers would be done soon with what there is to do.
    pub(crate) fn adaptive_target(&self, fields: &Fields<'_>) -> Result<Value, DocumentError> {
        let target = fields.optional_number("target_duration")?.unwrap_or(5.0).max(0.001);
        let occupancy: u64 = self.engine.workers().map(|worker| worker.occupancy_ms).sum();
        let wanted = (occupancy as f64 / 1e3 / target).ceil() as u64;
        let is_any_left = self.engine.workers().any(|worker| worker.processing > 0);
        Ok(wanted.max(u64::from(is_any_left)).into())
    }

    /// The RPC `workers_to_close`: so many, or those that nothing runs on, as long as the others have room for all results.
    pub(crate) fn workers_to_close(&self, fields: &Fields<'_>) -> Result<Value, DocumentError> {
        if !fields.optional_value("key")?.is_nil() {
            let text = "Mainstay's scheduler runs no Python, so it groups no workers by a function: leave `key` out";
            return Ok(rpc::failed(&Object::not_implemented_error(text), text));
        }
        let there = self.workers.len();
        let count = |name| -> Result<Option<usize>, DocumentError> {
            Ok(fields.optional_value(name)?.as_integer().map(|count| usize::try_from(count).unwrap_or_default()))
        };
        let target = count("target")?.map(|target| there.saturating_sub(target));
        let wanted = count("n")?.or(target);
        let minimum = count("minimum")?.unwrap_or_default();
        let ratio = fields.optional_number("memory_ratio")?;
        let ratio = ratio.or(wanted.is_none().then_some(MEMORY_RATIO));
        let by_name = fields.optional_text("attribute")? == Some("name");

        let mut room: f64 = self.engine.workers().map(|worker| worker.profile.memory_limit.unwrap_or_default() as f64).sum();
        let held: f64 = self.engine.workers().map(|worker| worker.nbytes as f64).sum();
        let mut candidates: Vec<WorkerView<'_>> = self.engine.workers().collect();
        // Those that are idle first, and of these those that hold least.
        candidates.sort_by_key(|worker| (worker.processing > 0, worker.nbytes));
        let mut chosen = Vec::new();
        for worker in candidates {
            room -= worker.profile.memory_limit.unwrap_or_default() as f64;
            let is_busy = wanted.is_none() && worker.processing > 0;
            let is_wanted = wanted.is_some_and(|wanted| chosen.len() < wanted);
            let has_room = ratio.is_some_and(|ratio| room >= ratio * held);
            if is_busy || there - chosen.len() <= minimum || !(is_wanted || has_room) {
                break;
            }
            chosen.push(worker.profile);
        }
        let named = chosen.into_iter().map(|profile| if by_name { profile.name.as_str() } else { profile.address.as_str() });
        Ok(Value::Array(named.map(Value::from).collect()))
    }
}
