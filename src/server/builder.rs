//! Has graphs built on a worker, by the Python files of `builder/`.
//!
//! Their text travels with each call; a worker that has it already does not run it again. `builder/serve.py` documents
//! the requests and the answer.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value as Json;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::comm::{CallError, Pool};
use crate::dask::{Serialized, WorkerAddress};
use crate::engine::{LabelExpression, WorkerSelector};
use crate::error::chain;
use crate::server::build_document::{BuildDocument, Built};
use crate::server::build_request::{InlineTask, Source};
use crate::server::handle::{BuildError, CollectionRequest};
use crate::wire::encode::{Encoder, encode_message};
use crate::wire::messages::{Ask, UpdateGraph, rpc};
use crate::wire::opaque::{into_plain_bytes, plain_bytes_of};
use crate::wire::pickle::Object;
use crate::wire::value::Value;

/// Makes modules of the files, and gives `serve`.
const LOADER: &str = include_str!("builder/load.py");
/// Each after those that it imports.
const FILES: [(&str, &str); 9] = [
    ("errors", include_str!("builder/errors.py")),
    ("annotations", include_str!("builder/annotations.py")),
    ("run_specs", include_str!("builder/run_specs.py")),
    ("shuffles", include_str!("builder/shuffles.py")),
    ("document", include_str!("builder/document.py")),
    ("graph", include_str!("builder/graph.py")),
    ("tasks", include_str!("builder/tasks.py")),
    ("sources", include_str!("builder/sources.py")),
    ("serve", include_str!("builder/serve.py")),
];
/// A source may compute while it builds, but not for ever.
const BUILD_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// Graphs whose builders keep dying are given up. A task that kills its worker is given up after four deaths
/// (`allowed_failures`), and each may hit a graph that has nothing to do with it.
pub(crate) const BUILDERS_LOST_MAX: u32 = 6;
const LOST_PAUSE: Duration = Duration::from_millis(500);
/// More tasks than this are refused: larger partitions are what helps.
pub(crate) const TASKS_A_GRAPH_MAX: usize = 2_000_000;
/// All run specs of a graph together; data belongs into tasks that load it.
const RUN_SPEC_BYTES_MAX: usize = 1 << 30;

const BOOTSTRAP: &str = "(lambda names: (exec(loader, names), names['load'](package, files))[1])({})";

/// The pickle of `serve`: `eval(BOOTSTRAP, {"loader": …, "package": …, "files": …})`.
static SERVE: LazyLock<Bytes> = LazyLock::new(|| {
    // Another text is another package, so that a new Mainstay does not find an old one's modules.
    let mut hasher = DefaultHasher::new();
    FILES.hash(&mut hasher);
    let files = FILES.map(|(name, source)| Object::Tuple(vec![Object::text(name), Object::text(source)])).to_vec();
    let globals = Object::Dict(vec![
        (Object::text("loader"), Object::text(LOADER)),
        (Object::text("package"), Object::text(format!("_mainstay_builder_{:016x}", hasher.finish()))),
        (Object::text("files"), Object::List(files)),
    ]);
    Object::call("builtins", "eval", vec![Object::text(BOOTSTRAP), globals]).dumps()
});

/// Whether a worker can be expected to answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    There,
    Silent,
}

/// A worker that a graph is made on. Its comm may end long after it has, or never.
#[derive(Clone, Debug)]
pub(crate) struct Builder {
    pub(crate) address: WorkerAddress,
    /// Ends with the worker.
    pub(crate) presence: watch::Receiver<Presence>,
    /// It is not given up because it is silent: graphs of this source may silence whoever makes them.
    pub(crate) is_patient: bool,
}

impl Builder {
    /// Ends when there is no sense in waiting any more.
    async fn is_lost(&self) {
        // An error says that the worker is gone.
        let _ = self.presence.clone().wait_for(|presence| *presence == Presence::Silent && !self.is_patient).await;
    }
}

/// Why there is no graph.
#[derive(Debug)]
pub(crate) enum BuildFailure {
    /// The source or the graph is not right. `exception` is a pickle that a Client can raise.
    Refused { error: BuildError, exception: Option<Bytes> },
    /// The worker went away: another may do.
    BuilderLost { reason: String },
}

impl BuildFailure {
    fn refused(kind: &str, message: String) -> Self {
        let error = BuildError { kind: kind.to_owned(), message, traceback: None, line: None };
        Self::Refused { error, exception: None }
    }
}

/// Has a collection's source built; gives the document also as it came.
pub(crate) async fn build(pool: &Pool, builder: &Builder, request: Vec<u8>) -> Result<(BuildDocument, Bytes), BuildFailure> {
    pause_if_lost(ask(pool, builder, "build", vec![request.into()]).await).await
}

/// Has a Client's graph lowered.
pub(crate) async fn lower(pool: &Pool, builder: &Builder, graph: Arc<UpdateGraph>) -> Result<BuildDocument, BuildFailure> {
    let request = encode_lower(&graph);
    drop(graph);
    pause_if_lost(ask(pool, builder, "lower", request).await).await.map(|(document, _)| document)
}

/// By the end of the pause it is known that the worker is gone, and another is asked.
async fn pause_if_lost<T>(result: Result<T, BuildFailure>) -> Result<T, BuildFailure> {
    if let Err(BuildFailure::BuilderLost { .. }) = &result {
        sleep(LOST_PAUSE).await;
    }
    result
}

async fn ask(pool: &Pool, builder: &Builder, name: &str, request: Vec<Bytes>) -> Result<(BuildDocument, Bytes), BuildFailure> {
    let raw = tokio::select! {
        answer = call(pool, &builder.address, name, request) => answer?,
        () = builder.is_lost() => {
            return Err(BuildFailure::BuilderLost { reason: format!("nothing is heard of {}", builder.address) });
        }
    };
    match BuildDocument::decode(raw.clone()) {
        Ok(Built::Document(document)) => Ok((*document, raw)),
        Ok(Built::Failed { error, exception }) => Err(BuildFailure::Refused { error, exception }),
        Err(error) => Err(BuildFailure::refused("BuilderFailed", chain(&error))),
    }
}

/// What a progress bar's function is about, or the error of reading it; `None` when the worker does not say.
pub(crate) async fn inspect(pool: &Pool, address: &WorkerAddress, setup: &Bytes) -> Option<Value> {
    let request = Value::map([("setup", Value::Binary(setup.clone()))]).to_msgpack();
    let document = call(pool, address, "watch", vec![request.into()]).await.ok()?;
    Value::from_msgpack(&document).ok()
}

/// Has a state written to a URL; the answer that the caller of it is due.
pub(crate) async fn dump(pool: &Pool, address: &WorkerAddress, request: &Value) -> Value {
    let failed = |text: &str| rpc::failed(&Object::runtime_error(text), text);
    match call(pool, address, "dump", vec![request.to_msgpack().into()]).await {
        Ok(document) => {
            let document = Value::from_msgpack(&document).unwrap_or(Value::Nil);
            let Some(error) = document.get("error") else { return Value::Nil };
            let text = error.get("message").and_then(Value::as_text).unwrap_or("no reason given");
            match error.get("exception") {
                Some(Value::Binary(exception)) => rpc::failed_with(exception.clone(), text),
                _ => failed(text),
            }
        }
        Err(BuildFailure::Refused { error, .. }) => failed(&error.message),
        Err(BuildFailure::BuilderLost { reason }) => failed(&format!("the worker that wrote it was lost: {reason}")),
    }
}

/// Calls one entry of the builder and gives its document. The request is in pieces, since graphs are large.
async fn call(pool: &Pool, address: &WorkerAddress, name: &str, request: Vec<Bytes>) -> Result<Bytes, BuildFailure> {
    let arguments = plain_bytes_of(Object::dumps_with_pieces(&[Object::text(name)], request));
    let ask = Ask::new("run_coroutine").with("function", SERVE.clone()).with("args", arguments).with("wait", true);
    let answer = timeout(BUILD_TIMEOUT, pool.call(address, encode_message(&ask)))
        .await
        .map_err(|_| {
            BuildFailure::refused("Timeout", format!("the source took longer than {} minutes", BUILD_TIMEOUT.as_secs() / 60))
        })?
        .map_err(|error: CallError| BuildFailure::BuilderLost { reason: chain(&error) })?;
    let answer = Value::decode(&answer).map_err(|error| BuildFailure::BuilderLost { reason: chain(&error) })?;
    result_bytes(&answer).map_err(|message| BuildFailure::refused("BuilderFailed", message))
}

/// The plain bytes that `run_coroutine` answered with; else what went wrong.
fn result_bytes(answer: &Value) -> Result<Bytes, String> {
    if answer.get("status").and_then(Value::as_text) != Some("OK") {
        let text = answer.get("exception_text").and_then(Value::as_text).unwrap_or("no reason given");
        return Err(format!("the worker cannot run the builder: {text}"));
    }
    match answer.get("result") {
        Some(Value::Serialized(serialized)) => into_plain_bytes(serialized).map_err(|error| chain(&error)),
        Some(Value::Binary(bytes)) => Ok(bytes.clone()),
        other => Err(format!("the builder answered with {}", other.map_or("nothing", Value::kind))),
    }
}

fn limits() -> Value {
    Value::map([("tasks", (TASKS_A_GRAPH_MAX as u64).into()), ("bytes", (RUN_SPEC_BYTES_MAX as u64).into())])
}

/// The request to build a collection.
pub(crate) fn encode_build(request: &CollectionRequest, inputs: &BTreeMap<String, Serialized>) -> Vec<u8> {
    let build = &request.build;
    let mut fields = vec![
        ("name", build.name.as_str().into()),
        ("label", request.uid.as_str().into()),
        ("parameters", object(&build.parameters)),
        ("inputs", Value::Map(inputs.iter().map(|(variable, data)| (variable.as_str().into(), in_place(data))).collect())),
        ("collections", texts(&build.collections)),
        ("optimize_graph", build.optimize_graph.into()),
        ("optimize_options", object(&build.optimize_options)),
        ("actors", Value::map([("all", build.actors.all.into()), ("tasks", flags(&build.actors.tasks))])),
        ("limits", limits()),
    ];
    match &build.source {
        Source::Python { text } => fields.extend([("kind", "python".into()), ("source", text.as_str().into())]),
        Source::Entrypoint { callable, args, kwargs } => fields.extend([
            ("kind", "entrypoint".into()),
            ("callable", callable.as_str().into()),
            ("args", Value::Array(args.iter().map(json).collect())),
            ("kwargs", object(kwargs)),
        ]),
        Source::Tasks(tasks) => {
            fields.extend([("kind", "tasks".into()), ("tasks", Value::Array(tasks.iter().map(inline_task).collect()))]);
        }
    }
    map(fields).to_msgpack()
}

/// The request to lower a Client's graph, in pieces: of the graph and of the keys, of which there may be a million, none is
/// copied.
fn encode_lower(graph: &UpdateGraph) -> Vec<Bytes> {
    let annotations = match &graph.annotations {
        Value::Pickled(pickled) => pickled.pickle().ok(),
        Value::Binary(pickle) => Some(pickle.clone()),
        _ => None,
    };
    let fields = [
        ("annotations", annotations.into()),
        ("internal_priority", pairs(&graph.internal_priority)),
        ("actors", graph.actors.clone()),
        ("limits", limits()),
    ];
    let mut encoder = Encoder::new();
    encoder.map(fields.len() + 2);
    for (name, value) in &fields {
        encoder.text(name);
        encoder.value(value);
    }
    encoder.text("keys");
    let mut pieces = vec![encoder.into_document().into(), graph.keys.as_msgpack().clone()];
    let mut encoder = Encoder::new();
    encoder.text("expr");
    encoder.array(2);
    encoder.value(&Value::from_msgpack(&graph.expr_ser.header).unwrap_or(Value::Nil));
    encoder.array(graph.expr_ser.frames.len());
    for frame in &graph.expr_ser.frames {
        encoder.binary_head(frame.len());
        pieces.extend([std::mem::take(&mut encoder).into_document().into(), frame.clone()]);
    }
    pieces.push(encoder.into_document().into());
    pieces
}

fn map(fields: Vec<(&str, Value)>) -> Value {
    Value::Map(fields.into_iter().map(|(name, value)| (name.into(), value)).collect())
}

/// A value's header and frames inside the document.
fn in_place(serialized: &Serialized) -> Value {
    let header = Value::from_msgpack(&serialized.header).unwrap_or(Value::Nil);
    Value::Array(vec![header, Value::Array(serialized.frames.iter().cloned().map(Value::Binary).collect())])
}

/// A map as an array of pairs: its keys may be tuples, which Python would read as lists.
fn pairs(value: &Value) -> Value {
    match value {
        Value::Map(entries) => {
            Value::Array(entries.iter().map(|(key, value)| Value::Array(vec![key.clone(), value.clone()])).collect())
        }
        _ => Value::Nil,
    }
}

fn flags(flags: &BTreeMap<String, bool>) -> Value {
    Value::Map(flags.iter().map(|(name, flag)| (name.as_str().into(), (*flag).into())).collect())
}

fn inline_task(task: &InlineTask) -> Value {
    let amounts = |amounts: &BTreeMap<String, f64>| {
        Value::Map(amounts.iter().map(|(name, amount)| (name.as_str().into(), (*amount).into())).collect())
    };
    map(vec![
        ("key", task.key.as_str().into()),
        ("call", task.call.as_str().into()),
        ("args", Value::Array(task.args.iter().map(json).collect())),
        ("kwargs", object(&task.kwargs)),
        ("retries", task.retries.map(u64::from).into()),
        ("priority", task.priority.into()),
        ("resources", task.resources.as_ref().map(amounts).into()),
        ("workers", task.workers.as_ref().map(selector).into()),
        ("allowOtherWorkers", task.allow_other_workers.into()),
        ("actor", task.actor.into()),
    ])
}

/// A selector as `build_document.rs` reads it again; the builder only carries it.
fn selector(selector: &WorkerSelector) -> Value {
    let WorkerSelector { match_labels, match_expressions, names } = selector;
    let expression = |LabelExpression { key, operator, values }: &LabelExpression| {
        map(vec![("key", key.as_str().into()), ("operator", operator.as_str().into()), ("values", texts(values))])
    };
    map(vec![
        (
            "match_labels",
            Value::Map(match_labels.iter().map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect()),
        ),
        ("match_expressions", Value::Array(match_expressions.iter().map(expression).collect())),
        ("names", texts(names)),
    ])
}

fn texts(texts: &[String]) -> Value {
    Value::Array(texts.iter().map(|text| text.as_str().into()).collect())
}

fn object(entries: &serde_json::Map<String, Json>) -> Value {
    Value::Map(entries.iter().map(|(name, value)| (name.as_str().into(), json(value))).collect())
}

/// JSON as the values that Python gets.
fn json(value: &Json) -> Value {
    match value {
        Json::Null => Value::Nil,
        Json::Bool(boolean) => (*boolean).into(),
        Json::Number(number) => number
            .as_i64()
            .map(Value::from)
            .or_else(|| number.as_u64().map(Value::from))
            .unwrap_or_else(|| number.as_f64().unwrap_or_default().into()),
        Json::String(text) => text.as_str().into(),
        Json::Array(elements) => Value::Array(elements.iter().map(json).collect()),
        Json::Object(entries) => object(entries),
    }
}
