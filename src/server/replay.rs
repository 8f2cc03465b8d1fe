//! Tasks are run again in a Client, for a look inside: how to run one, and which of many is to blame.
//!
//! Source: distributed 2026.8.0, recreate_tasks.py.

use crate::server::namespace::Namespace;
use crate::wire::document::{DocumentError, Fields};
use crate::wire::messages::rpc;
use crate::wire::opaque::Pickled;
use crate::wire::pickle::{Object, run_spec_pickle};
use crate::wire::value::Value;

impl Namespace {
    /// The RPC `get_runspec`: how to run a task. The Client fetches what it reads, and runs it in its own process.
    pub(crate) fn get_runspec(&self, fields: &Fields<'_>) -> Result<Value, DocumentError> {
        let key = fields.key("key")?;
        let Some((run_spec, dependencies)) = self.engine.how_to_run(&key) else {
            let text = format!("`{key}` cannot be run again: it is data that was put there, or not known any more");
            return Ok(rpc::failed(&Object::key_error(&text), &text));
        };
        Ok(Pickled::new(&run_spec_pickle(run_spec, &key, dependencies.into_iter())).into())
    }

    /// The RPC `get_error_cause`: the task that failed by itself, of the first of these keys that failed.
    pub(crate) fn get_error_cause(&self, fields: &Fields<'_>) -> Result<Value, DocumentError> {
        Ok(fields.keys("keys")?.iter().find_map(|key| self.engine.blamed(key)).into())
    }
}
