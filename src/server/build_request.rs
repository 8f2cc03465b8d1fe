//! What is to be built: all of a spec that decides the graph.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::engine::WorkerSelector;

/// The source of a collection with all it needs, references already resolved.
#[derive(Clone, Debug, PartialEq)]
pub struct BuildRequest {
    /// The collection's name, for tracebacks and messages.
    pub name: String,
    pub source: Source,
    /// `params` in the source.
    pub parameters: Map<String, Value>,
    /// Variables bound to outputs of other collections of the namespace.
    pub inputs: BTreeMap<String, Input>,
    /// The names to persist.
    pub collections: Vec<String>,
    pub optimize_graph: bool,
    pub optimize_options: Map<String, Value>,
    pub actors: Actors,
}

/// Where the graph comes from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    Python { text: String },
    Entrypoint { callable: String, args: Vec<Value>, kwargs: Map<String, Value> },
    Tasks(Vec<InlineTask>),
}

/// One task written into the manifest.
#[derive(Clone, Debug, PartialEq)]
pub struct InlineTask {
    pub key: String,
    /// `module:function`
    pub call: String,
    /// `{"task": key}` anywhere inside is the result of another task.
    pub args: Vec<Value>,
    pub kwargs: Map<String, Value>,
    pub retries: Option<u32>,
    pub priority: Option<f64>,
    pub resources: Option<BTreeMap<String, f64>>,
    pub workers: Option<WorkerSelector>,
    pub allow_other_workers: Option<bool>,
    pub actor: bool,
}

/// An output of another collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    pub collection: String,
    pub output: String,
}

/// Which tasks become actors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Actors {
    /// All output tasks.
    pub all: bool,
    /// Collections or keys by name.
    pub tasks: BTreeMap<String, bool>,
}
