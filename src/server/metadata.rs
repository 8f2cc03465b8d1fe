//! What Clients put beside the tasks: values under paths of names. What is under the key of a task goes with the task.
//!
//! Source: distributed 2026.8.0, scheduler.py: `get_metadata`, `set_metadata`.

use std::collections::BTreeSet;

use crate::dask::TaskKey;
use crate::server::namespace::Namespace;
use crate::wire::document::{DocumentError, Fields};
use crate::wire::messages::rpc;
use crate::wire::pickle::Object;
use crate::wire::value::Value;

#[derive(Debug)]
pub(crate) struct Metadata {
    values: Value,
    /// Names that were keys of tasks when something was put under them.
    of_tasks: BTreeSet<TaskKey>,
}

impl Default for Metadata {
    fn default() -> Self {
        Self { values: Value::Map(Vec::new()), of_tasks: BTreeSet::new() }
    }
}

impl Namespace {
    pub(crate) fn get_metadata(&mut self, fields: &Fields<'_>) -> Result<Value, DocumentError> {
        let path = path(fields)?;
        self.drop_metadata_of_forgotten(path.first());
        let mut place = Some(&self.metadata.values);
        for step in &path {
            if let Some(value) = place.filter(|value| value.as_map().is_none()) {
                let text = format!("there is nothing under {path:?}: what is above is no dict but {}", value.kind());
                return Ok(rpc::failed(&Object::type_error(&text), &text));
            }
            place = place.and_then(|place| lookup(place, step));
        }
        if let Some(value) = place {
            return Ok(value.clone());
        }
        let default = fields.optional_value("default")?;
        // The marker of "no default" is an enum of distributed.
        if default.get("__Enum__").is_some() {
            let text = format!("no metadata under {path:?}");
            return Ok(rpc::failed(&Object::key_error(&text), &text));
        }
        Ok(default)
    }

    pub(crate) fn set_metadata(&mut self, fields: &Fields<'_>) -> Result<Value, DocumentError> {
        let value = fields.optional_value("value")?;
        let path = path(fields)?;
        self.drop_metadata_of_forgotten(path.first());
        if let Some(key) = path.first().and_then(Value::as_key).filter(|key| self.engine.task_state(key).is_some()) {
            self.metadata.of_tasks.insert(key);
        }
        let mut place = &mut self.metadata.values;
        for step in path {
            place = entry(place, step);
        }
        *place = value;
        Ok(Value::Nil)
    }

    /// Looked at when somebody asks: a task that is forgotten does not look for what was said of it.
    fn drop_metadata_of_forgotten(&mut self, name: Option<&Value>) {
        let Some(key) = name.and_then(Value::as_key) else { return };
        if self.engine.task_state(&key).is_none()
            && self.metadata.of_tasks.remove(&key)
            && let Value::Map(entries) = &mut self.metadata.values
        {
            let name = Value::from(&key);
            entries.retain(|(other, _)| *other != name);
        }
    }
}

/// The steps into the metadata: an array, or one step alone.
fn path(fields: &Fields<'_>) -> Result<Vec<Value>, DocumentError> {
    Ok(match fields.value("keys")? {
        Value::Array(steps) => steps,
        step => vec![step],
    })
}

fn lookup<'a>(place: &'a Value, step: &Value) -> Option<&'a Value> {
    place.as_map()?.iter().find(|(name, _)| name == step).map(|(_, value)| value)
}

/// The place under a step, made if it is not there.
fn entry(place: &mut Value, step: Value) -> &mut Value {
    if !matches!(place, Value::Map(_)) {
        *place = Value::Map(Vec::new());
    }
    let Value::Map(entries) = place else { unreachable!("it was made a map above") };
    let index = entries.iter().position(|(name, _)| *name == step).unwrap_or_else(|| {
        entries.push((step, Value::Nil));
        entries.len() - 1
    });
    &mut entries[index].1
}
