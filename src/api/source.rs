//! `spec.source`: where the collections come from.
//!
//! Unions are structs of options, not enums: all that the schema lets through decodes, and `validate` says what is wrong.

#![expect(unreachable_pub, reason = "KubeSchema derives from a copy of each type inside a function")]

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::schema;
use super::spec::{OBJECT_NAME, OBJECT_NAME_MESSAGE, PRIORITY_MAX, Workers};

/// Longest Python text, in the resource or in a ConfigMap or Secret.
pub const SOURCE_BYTES_MAX: usize = 262_144;
/// Most tasks of `spec.source.tasks`.
pub const TASKS_MAX: usize = 10_000;
/// Longest key of an inline task.
pub const TASK_KEY_LENGTH_MAX: usize = 253;
/// Longest `module:name`.
pub const CALLABLE_LENGTH_MAX: usize = 512;
/// Most positional arguments, or keyword arguments, of one call.
pub const ARGUMENTS_MAX: usize = 256;
/// Longest name of a Kubernetes object.
pub const NAME_LENGTH_MAX: usize = 253;
/// Longest key of a ConfigMap or Secret.
pub const KEY_LENGTH_MAX: usize = 253;

const TASKS_LENGTH: u32 = TASKS_MAX as u32;
const CALLABLE_PATTERN: &str =
    "^[A-Za-z_][A-Za-z0-9_]*([.][A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*([.][A-Za-z_][A-Za-z0-9_]*)*$";
const CALLABLE_MESSAGE: &str = r#"must be "module:name", for example "acme.pipelines:build""#;
const EXACTLY_ONE_SOURCE: &str =
    "[has(self.python), has(self.pythonFrom), has(self.entrypoint), has(self.tasks)].filter(x, x).size() == 1";
const EXACTLY_ONE_SOURCE_MESSAGE: &str = "'must have exactly one of python, pythonFrom, entrypoint and tasks; has' + \
     (has(self.python) ? ' python' : '') + (has(self.pythonFrom) ? ' pythonFrom' : '') + (has(self.entrypoint) ? ' entrypoint' : '') + \
     (has(self.tasks) ? ' tasks' : '') + (has(self.python) || has(self.pythonFrom) || has(self.entrypoint) || has(self.tasks) ? '' : ' none')";
const EXACTLY_ONE_REFERENCE: &str = "has(self.configMapKeyRef) != has(self.secretKeyRef)";

/// Where the collections come from: exactly one of python, pythonFrom, entrypoint and tasks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(EXACTLY_ONE_SOURCE)
        .message(Message::Expression(EXACTLY_ONE_SOURCE_MESSAGE.into()))
)]
pub struct Source {
    /// Python text that defines the collections as variables. It runs on a worker of the namespace, with that worker's
    /// packages and data; `params` holds spec.parameters, and each name of spec.inputs is a variable. At most 256 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = SOURCE_BYTES_MAX))]
    pub python: Option<String>,

    /// The same text, taken from a ConfigMap or Secret of this namespace. Changes are picked up
    /// within a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub python_from: Option<PythonFrom>,

    /// A function of a package that the worker image has. It returns the collections: one; several, in the order of
    /// spec.collections; or a dict by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Entrypoint>,

    /// Tasks written out one by one, at most 10000 (the API server takes objects of about 1 MiB in all). The keys that
    /// spec.collections names are kept; without spec.collections, the tasks that no other task takes as an argument.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = TASKS_LENGTH))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["key".into()]))]
    pub tasks: Option<Vec<InlineTask>>,
}

/// Where Python text is: exactly one of configMapKeyRef and secretKeyRef.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(EXACTLY_ONE_REFERENCE).message("must have exactly one of configMapKeyRef and secretKeyRef")
)]
pub struct PythonFrom {
    /// A key of a ConfigMap in this namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeySelector>,

    /// A key of a Secret in this namespace. Its text is never shown in status, events or logs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeySelector>,
}

/// One key of a ConfigMap or Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct KeySelector {
    /// Name of the ConfigMap or Secret.
    #[schemars(length(min = 1, max = NAME_LENGTH_MAX))]
    #[x_kube(validation = Rule::new(OBJECT_NAME).message(OBJECT_NAME_MESSAGE))]
    pub name: String,

    /// Key within it, for example "sales.py".
    #[schemars(length(min = 1, max = KEY_LENGTH_MAX))]
    pub key: String,
}

/// A function of an installed package.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct Entrypoint {
    /// The function, as "module:name", for example "acme.pipelines:build".
    #[schemars(length(min = 3, max = CALLABLE_LENGTH_MAX))]
    #[x_kube(validation = Rule::new(format!("self.matches('{CALLABLE_PATTERN}')")).message(CALLABLE_MESSAGE))]
    pub callable: String,

    /// Positional arguments: any JSON values, at most 256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::any_values")]
    pub args: Vec<Value>,

    /// Keyword arguments by name: any JSON values, at most 256.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "schema::free_form")]
    pub kwargs: Map<String, Value>,
}

/// One task of a graph that is written out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct InlineTask {
    /// Name of the task, unique in this list, for example "load-0". At most 253 characters.
    #[schemars(length(min = 1, max = TASK_KEY_LENGTH_MAX))]
    pub key: String,

    // A pattern, since a rule would cost too much on ten thousand tasks; so would one on the names of its resources.
    /// The function to call, as "module:name", for example "acme.io:load".
    #[schemars(length(min = 3, max = CALLABLE_LENGTH_MAX), regex(pattern = CALLABLE_PATTERN))]
    pub call: String,

    /// Positional arguments: any JSON values, at most 256. An object with the one field "task", as in {task: load-0},
    /// stands for the result of that task, and {input: base} for that entry of spec.inputs; also inside lists and objects.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::any_values")]
    pub args: Vec<Value>,

    /// Keyword arguments by name: any JSON values, at most 256. {task: load-0} stands for a result, as in args.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "schema::free_form")]
    pub kwargs: Map<String, Value>,

    /// Runs again after a failure, instead of spec.retries for this task. 0 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub retries: Option<i64>,

    /// Priority instead of spec.priority for this task: higher runs first. From -1e9 to 1e9.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -PRIORITY_MAX, max = PRIORITY_MAX))]
    pub priority: Option<f64>,

    /// The workers that may run this task, instead of spec.workers; an empty object allows all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::workers_of_many")]
    pub workers: Option<Workers>,

    /// Prefer the workers of this task instead of requiring them, instead of spec.allowOtherWorkers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_other_workers: Option<bool>,

    /// Resources that this task takes while it runs, instead of spec.resources, for example {GPU: 1}.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::amounts_of_any_name")]
    pub resources: Option<BTreeMap<String, f64>>,

    /// Makes the task an actor: its result stays on its worker as an object with methods. Default: false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<bool>,
}
