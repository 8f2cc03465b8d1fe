//! `PersistedCollection` and its spec: every parameter of `Client.persist`.

#![expect(unreachable_pub, reason = "KubeSchema derives from a copy of each type inside a function")]

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::schema;
use super::source::Source;
use super::status::PersistedCollectionStatus;

/// Most outputs of one collection.
pub const COLLECTIONS_MAX: usize = 64;
/// Most inputs from other collections.
pub const INPUTS_MAX: usize = 32;
/// Most entries of a free-form object, such as `parameters`.
pub const FREE_FORM_PROPERTIES_MAX: usize = 256;
/// Most bytes of JSON in a free-form object. The schema cannot count them.
pub const FREE_FORM_BYTES_MAX: usize = 262_144;
/// Most labels to match.
pub const LABELS_MAX: usize = 32;
/// Most label expressions.
pub const LABEL_EXPRESSIONS_MAX: usize = 16;
/// Most values of a label expression.
pub const EXPRESSION_VALUES_MAX: usize = 64;
/// Most worker names.
pub const WORKER_NAMES_MAX: usize = 256;
/// Most resources that a task takes.
pub const RESOURCES_MAX: usize = 16;
/// The largest amount of a resource (`engine::Amount::MAX`).
pub const AMOUNT_MAX: f64 = 1e12;
/// Most retries of a task.
pub const RETRIES_MAX: i64 = 1000;
/// Most copies of an output.
pub const REPLICAS_MAX: i64 = 16;
/// The largest priority, and as a negative number the smallest.
pub const PRIORITY_MAX: f64 = 1e9;
/// The longest FIFO timeout: a year.
pub const FIFO_TIMEOUT_SECONDS_MAX: f64 = 31_536_000.0;
/// The longest text of a FIFO timeout.
pub const FIFO_TIMEOUT_LENGTH_MAX: usize = 32;
/// Most overrides.
pub const OVERRIDES_MAX: usize = 64;
/// Longest pattern of an override.
pub const OVERRIDE_KEYS_LENGTH_MAX: usize = 253;
/// Most tasks named in `actors.tasks`.
pub const ACTOR_TASKS_MAX: usize = 1000;

const NAMES_SOMETHING: &str = "has(self.source.tasks) || (has(self.collections) && self.collections.size() > 0)";
const NAMES_ARE_PYTHON: &str =
    "has(self.source.tasks) || !has(self.collections) || self.collections.all(c, c.matches('^[A-Za-z_][A-Za-z0-9_]*$'))";
const NAMES_ARE_PYTHON_MESSAGE: &str = r#"'"' + self.collections.filter(c, !c.matches('^[A-Za-z_][A-Za-z0-9_]*$'))[0] + '" is not the name of a Python variable: letters, digits and underscores, not starting with a digit'"#;
const ALLOW_NEEDS_WORKERS: &str = "!self.allowOtherWorkers || (has(self.workers) && ((has(self.workers.matchLabels) && \
     self.workers.matchLabels.size() > 0) || (has(self.workers.matchExpressions) && self.workers.matchExpressions.size() > 0) || \
     (has(self.workers.names) && self.workers.names.size() > 0)))";
const KEYS_ARE_PYTHON: &str = "self.all(name, name.matches('^[A-Za-z_][A-Za-z0-9_]{0,252}$'))";
const NO_SELF_INPUT: &str = "!has(self.spec.inputs) || self.spec.inputs.all(name, \
     self.spec.inputs[name].persistedCollection != self.metadata.name)";
// `dask::parse_timedelta` in CEL. Like Dask, it lets spaces mean nothing and puts a 1 before what does not begin with a
// digit; before a digit the 1 changes nothing, here where only the form matters.
const DURATION: &str = "self.replace(' ', '').size() > 0 && ('1' + self.replace(' ', '')).matches('^1(_?[0-9])*([.]([0-9](_?[0-9])*)?)?([eE][+-]?[0-9](_?[0-9])*)?(?i:ns|us|ms|s|m|h|d|w|(nano|micro|milli)?seconds?|minutes?|hours?|days?|weeks?)?$')";
// What does not look like a duration is left to the rule above. Exponents of three digits are out of range, or nothing.
const DURATION_IN_RANGE: &str = "[self.replace(' ', '').lowerAscii()].map(t, (t.matches('^[0-9]') ? t : '1' + t).replace('_', '')) \
     .all(t, !t.matches('^[0-9]+([.][0-9]*)?(e[+-]?[0-9]+)?[a-z]*$') || t.matches('e-[0-9]{3}') || (!t.matches('e[+]?[0-9]{3}') && \
     [t.find('[a-z]*$')].all(u, double(t.find('^[0-9]+([.][0-9]*)?(e[+-]?[0-9]+)?')) * \
     (u.startsWith('n') ? 1e-9 : u == 'us' || u.startsWith('mic') ? 1e-6 : u == 'ms' || u.startsWith('mil') ? 1e-3 : \
     u.startsWith('m') ? 60.0 : u.startsWith('h') ? 3600.0 : u.startsWith('d') ? 86400.0 : u.startsWith('w') ? 604800.0 : 1.0) <= 31536000.0)))";
const OPERATOR_VALUES: &str = "self.operator in ['In', 'NotIn'] ? has(self.values) && self.values.size() > 0 : \
     !has(self.values) || self.values.size() == 0";
const LABEL_KEY: &str = "self.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$')";
pub(super) const LABEL_KEY_PATTERN: &str = "^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$";
pub(super) const LABEL_VALUE_PATTERN: &str = "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$";
const LABEL_KEY_MESSAGE: &str = r#"must be the key of a label, for example "disk" or "topology.kubernetes.io/zone""#;
pub(super) const OBJECT_NAME: &str = "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')";
pub(super) const OBJECT_NAME_MESSAGE: &str =
    "must be the name of a Kubernetes object: lower-case letters, digits, '-' and '.', with a letter or digit at both ends";

/// What to keep in the memory of the workers, and under which conditions: the parameters of Dask's Client.persist.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "mainstay.dev",
    version = "v1alpha1",
    kind = "PersistedCollection",
    plural = "persistedcollections",
    namespaced,
    status = "PersistedCollectionStatus",
    shortname = "pcol",
    category = "dask",
    derive = "PartialEq",
    validation = Rule::new(NO_SELF_INPUT).field_path(".spec.inputs").message("must not name this collection itself"),
    doc = "Dask collections that are computed and kept in the memory of the namespace's workers for as long as this object exists. Read them with an unmodified distributed.Client: client.get_dataset(\"name\") for an object with one output, client.get_dataset(\"name/output\") for one of several.",
    printcolumn(
        name = "Phase",
        type_ = "string",
        json_path = ".status.phase",
        description = "Where the collection is on its way"
    ),
    printcolumn(
        name = "Progress",
        type_ = "string",
        json_path = ".status.progress",
        description = "Share of the tasks that are done"
    ),
    printcolumn(name = "Tasks", type_ = "integer", json_path = ".status.tasks.total", description = "Tasks of the graph"),
    printcolumn(
        name = "Erred",
        type_ = "integer",
        json_path = ".status.tasks.erred",
        description = "Tasks that failed, or need one that did"
    ),
    printcolumn(
        name = "Retries",
        type_ = "integer",
        json_path = ".status.retries.used",
        description = "Runs repeated after an exception"
    ),
    printcolumn(name = "Size", type_ = "string", json_path = ".status.size", description = "Memory that the outputs take"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status",
        priority = 1,
        description = "Whether all outputs are in memory"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason",
        priority = 1,
        description = "Why it is Ready or not"
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        priority = 1,
        description = "The same in words"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(NAMES_SOMETHING)
        .field_path(".collections")
        .message("must name at least one variable of the source to persist, for example [daily]"),
    validation = Rule::new(NAMES_ARE_PYTHON)
        .field_path(".collections")
        .message(Message::Expression(NAMES_ARE_PYTHON_MESSAGE.into())),
    validation = Rule::new(ALLOW_NEEDS_WORKERS)
        .field_path(".allowOtherWorkers")
        .message("needs workers: without matchLabels, matchExpressions or names there is nothing to prefer")
)]
pub struct PersistedCollectionSpec {
    /// Where the collections come from: exactly one of python, pythonFrom, entrypoint and tasks.
    pub source: Source,

    /// Values for the source, which reads them as the dict `params`, for example {path: /data/sales, year: 2013}. Any
    /// JSON values. Quote names that YAML takes for something else, such as "y" and "n".
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "schema::free_form")]
    pub parameters: Map<String, Value>,

    /// Outputs of other PersistedCollections of this namespace, by the name of the variable that they are in the source.
    /// They are used where they are, not computed again, and followed when they change. At most 32.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = INPUTS_MAX))]
    #[x_kube(validation = Rule::new(KEYS_ARE_PYTHON)
        .message("must have names of Python variables as keys: letters, digits and underscores, not starting with a digit"))]
    pub inputs: BTreeMap<String, Input>,

    /// Names of the variables of the source to persist, each once: any Dask collection (array, dataframe, bag, delayed) or
    /// plain value. At least one, at most 64; with source.tasks, keys of tasks, or nothing. Quote names that YAML takes for
    /// something else, such as "y" and "no".
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = COLLECTIONS_MAX), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub collections: Vec<String>,

    /// Whether to optimise the graph before it runs, as Client.persist does. false keeps every intermediate key apart and
    /// the annotations of single layers. Default: true.
    #[serde(default = "yes")]
    pub optimize_graph: bool,

    /// Keyword arguments that are handed to the optimisation as they are (**kwargs of Client.persist).
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "schema::free_form")]
    pub optimize_options: Map<String, Value>,

    /// The workers that may run the tasks, by labels of their pods and by name. Without it, all workers of the namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workers: Option<Workers>,

    /// Prefer spec.workers instead of requiring them. Resources stay required. Default: false.
    #[serde(default)]
    pub allow_other_workers: bool,

    /// Abstract resources that every task takes while it runs, for example {GPU: 2} or {MEMORY: 1e9}. Workers declare
    /// theirs with --resources, the pod annotation mainstay.dev/resources, or container limits (nvidia.com/gpu is GPU).
    /// Amounts from 0 to 1e12, fractions allowed; at most 16.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::amounts")]
    pub resources: BTreeMap<String, f64>,

    /// How often a task that failed is run again, each task for itself. The death of a worker does not count here.
    /// 0 to 1000. Default: 0.
    #[serde(default)]
    #[schemars(range(min = 0, max = RETRIES_MAX))]
    pub retries: i64,

    // A plain JSON number: it takes negative values and fractions as Dask does, and has no NaN and no infinity. An
    // int-or-string would take fractions only as text, and any text.
    /// Tasks of a collection with a higher priority run first. May be negative or a fraction, from -1e9 to 1e9. Default: 0.
    #[serde(default)]
    #[schemars(range(min = -PRIORITY_MAX, max = PRIORITY_MAX))]
    pub priority: f64,

    /// Collections that are applied within this time of the last one share its generation, so their tasks run mixed;
    /// later ones run after it. A Dask duration: "60s", "1.5 minutes", "100ms", "2h"; a number alone means seconds. At
    /// most a year. Default: "60s".
    #[serde(default = "sixty_seconds")]
    #[schemars(length(max = FIFO_TIMEOUT_LENGTH_MAX))]
    #[x_kube(
        validation = Rule::new(DURATION)
            .message(r#"must be a Dask duration such as "60s", "1.5 minutes", "100ms" or "2h"; a number alone means seconds"#),
        validation = Rule::new(DURATION_IN_RANGE).message("must not be longer than a year (365 days)")
    )]
    pub fifo_timeout: String,

    /// Which results are actors: objects that stay on their worker and are called through the Client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actors: Option<Actors>,

    /// How the outputs are kept. Without it, in the memory of one worker each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence: Option<Persistence>,

    // Atomic, since the order counts.
    /// Other conditions for some of the tasks, by patterns of their keys, for example {keys: "load-*", retries: 5}. They take
    /// precedence over what the source says of a task, and may be changed while the graph runs: nothing is built or computed
    /// again. Of several that match a task the later wins, field by field. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = OVERRIDES_MAX))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub overrides: Vec<Override>,
}

/// An output of another collection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// Name of the PersistedCollection, in this namespace.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(OBJECT_NAME).message(OBJECT_NAME_MESSAGE))]
    pub persisted_collection: String,

    /// Which of its outputs.
    #[schemars(length(min = 1, max = 253))]
    pub output: String,
}

/// Selects workers. Labels, expressions and names must all match when they are given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Workers {
    /// Labels that the worker's pod must have, for example {disk: nvme}. At most 32.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::labels")]
    pub match_labels: BTreeMap<String, String>,

    /// Conditions on labels of the worker's pod, all of which must hold. At most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = LABEL_EXPRESSIONS_MAX))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub match_expressions: Vec<LabelRequirement>,

    /// Pod names, worker names, host names or addresses (as in tcp://10.0.0.7:40001), any of which must match. At most 256.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = WORKER_NAMES_MAX), inner(length(min = 1, max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub names: Vec<String>,
}

/// A condition on one label.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(validation = Rule::new(OPERATOR_VALUES)
    .message("operators In and NotIn need values; Exists and DoesNotExist take none"))]
pub struct LabelRequirement {
    /// The label, for example "disk".
    #[schemars(length(min = 1, max = 317))]
    #[x_kube(validation = Rule::new(LABEL_KEY).message(LABEL_KEY_MESSAGE))]
    pub key: String,

    /// How the label's value compares: In, NotIn, Exists or DoesNotExist.
    #[schemars(extend("enum" = ["In", "NotIn", "Exists", "DoesNotExist"]))]
    pub operator: String,

    /// The values of In and NotIn; none for the others. At most 64.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = EXPRESSION_VALUES_MAX), inner(length(max = 63)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub values: Vec<String>,
}

/// Other conditions for the tasks whose key matches a pattern.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Override {
    /// A pattern as in a shell: * stands for any text, ? for one character, [ab] for one of these, [!ab] for one of all
    /// others, {a,b} for either. It has to match the whole of a key as the status shows it, or of its name, "load-5f2a" in
    /// ('load-5f2a', 0), or of its prefix, "load". Inline tasks go by their own key alone. The condition GraphAccepted names
    /// patterns that match no task.
    #[schemars(length(min = 1, max = OVERRIDE_KEYS_LENGTH_MAX))]
    pub keys: String,

    /// Runs again after a failure, for each of these tasks. 0 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = RETRIES_MAX))]
    pub retries: Option<i64>,

    /// These tasks run before others of a lower priority. From -1e9 to 1e9.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -PRIORITY_MAX, max = PRIORITY_MAX))]
    pub priority: Option<f64>,

    // The rules of spec.workers would cost too much on a list; `validate` has them.
    /// The workers that may run these tasks; an empty object allows all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::workers_of_many")]
    pub workers: Option<Workers>,

    /// Prefer the workers of these tasks instead of requiring them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_other_workers: Option<bool>,

    /// Resources that each of these tasks takes while it runs, for example {GPU: 1}; an empty object stands for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::amounts_of_any_name")]
    pub resources: Option<BTreeMap<String, f64>>,
}

/// Which results are actors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Actors {
    /// Whether every output is an actor. Default: false.
    #[serde(default)]
    pub all: bool,

    /// Single outputs or tasks by name, for example {model: true}; goes before `all`. At most 1000.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = ACTOR_TASKS_MAX))]
    pub tasks: BTreeMap<String, bool>,
}

/// How outputs are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Persistence {
    /// How many workers hold each key of the outputs, for as long as the object exists. Copies are made in the background, on
    /// different nodes where there are some, and again when one is lost. They are not made of actors. 1 to 16. Default: 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = REPLICAS_MAX))]
    pub replicas: i64,
}

fn one() -> i64 {
    1
}

fn yes() -> bool {
    true
}

fn sixty_seconds() -> String {
    "60s".to_owned()
}
