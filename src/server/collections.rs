//! The collections that a namespace's server was asked to keep, from request to graph.
//!
//! ```text
//! apply ─► WaitingForInput ─► WaitingForWorker ─► Building ─┬► Accepted (the engine has the graph)
//!              ▲                    ▲                       ├► BuildFailed (until an edit, or a worker joins)
//!              └────────────────────┴─ builder lost ────────┘
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};

use tracing::{info, warn};

use crate::dask::{Serialized, TaskKey};
use crate::engine::{self, CollectionId, Stimulus, Summary, WorkerId};
use crate::server::build_document::{BuildDocument, BuiltOutput};
use crate::server::builder::{self, BUILDERS_LOST_MAX, BuildFailure, Operation};
use crate::server::event::Event;
use crate::server::handle::{BuildError, CollectionRequest, OutputInfo, Past, Report, Stage};
use crate::server::namespace::Namespace;
use crate::wire::value::Value;

/// Builds that run at once; each is a thread on a worker.
const BUILDS_MAX: usize = 8;

/// All collections by number and by uid.
#[derive(Debug, Default)]
pub(crate) struct Collections {
    entries: BTreeMap<CollectionId, Collection>,
    by_uid: BTreeMap<String, CollectionId>,
    next: u32,
    /// All and only collections whose report may be out of date.
    changed: BTreeSet<CollectionId>,
}

/// One collection.
#[derive(Debug)]
pub(crate) struct Collection {
    request: CollectionRequest,
    stage: Stage,
    /// Counts builds: the answer of an older one is ignored.
    attempt: u64,
    builder: Option<WorkerId>,
    builders_lost: u32,
    accepted: Option<Accepted>,
    /// To be forgotten as soon as the engine has let go.
    is_removed: bool,
}

/// What the builder gave for the revision that the engine has.
#[derive(Debug)]
struct Accepted {
    outputs: Vec<BuiltOutput>,
    /// The manifest's names of inline tasks.
    names: BTreeMap<TaskKey, Arc<str>>,
}

impl Collections {
    fn id(&self, uid: &str) -> Option<CollectionId> {
        self.by_uid.get(uid).copied()
    }

    fn live(&self) -> impl Iterator<Item = &Collection> {
        self.entries.values().filter(|collection| !collection.is_removed)
    }

    /// The names that Clients see: `name` for all of a collection, and `name/output`.
    pub(crate) fn dataset_names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for collection in self.live() {
            let Some(accepted) = &collection.accepted else { continue };
            names.push(collection.request.name.clone());
            names.extend(accepted.outputs.iter().map(|output| format!("{}/{}", collection.request.name, output.name)));
        }
        names
    }

    /// What a declared collection keeps under a name that a Client may use: an output, or a dict of several by name.
    pub(crate) fn dataset(&self, name: &str) -> Option<(Serialized, Vec<TaskKey>)> {
        let (collection, output) = name.split_once('/').map_or((name, None), |(collection, output)| (collection, Some(output)));
        let found = self.live().find(|candidate| candidate.request.name == collection)?;
        let outputs = &found.accepted.as_ref()?.outputs;
        let output = match output {
            Some(output) => outputs.iter().find(|candidate| candidate.name == output)?,
            None if outputs.len() == 1 => outputs.first()?,
            None => return Some(together(outputs)),
        };
        Some((output.data.clone(), output.keys.clone()))
    }

    /// Has every report made anew.
    pub(crate) fn all_changed(&mut self) {
        self.changed.extend(self.entries.keys());
    }

    /// Whether a name belongs to a declared collection, accepted or not.
    pub(crate) fn owns(&self, name: &str) -> bool {
        let collection = name.split_once('/').map_or(name, |(collection, _)| collection);
        self.live().any(|candidate| candidate.request.name == collection)
    }
}

impl Namespace {
    /// Takes what a collection should be.
    pub(crate) fn apply(&mut self, request: CollectionRequest) {
        let collections = &mut self.collections;
        let Some(id) = collections.id(&request.uid) else {
            let id = CollectionId(collections.next);
            collections.next += 1;
            collections.by_uid.insert(request.uid.clone(), id);
            let (generation, fifo_timeout_ms) = (request.past.generation, request.requirements.fifo_timeout_ms);
            collections.entries.insert(id, Collection::new(request));
            self.collections.changed.insert(id);
            self.stimulate(Stimulus::CollectionApplied { collection: id, fifo_timeout_ms, generation });
            return self.start_builds();
        };
        let Some(collection) = collections.entries.get_mut(&id) else { return };
        let is_new_graph = collection.request.revision != request.revision;
        let has_new_requirements = collection.request.requirements != request.requirements;
        if !is_new_graph && !has_new_requirements && collection.request.generation == request.generation {
            return;
        }
        let requirements = request.requirements.clone();
        collection.request = request;
        collections.changed.insert(id);
        if is_new_graph {
            collection.wait();
            let fifo_timeout_ms = requirements.fifo_timeout_ms;
            self.stimulate(Stimulus::CollectionApplied { collection: id, fifo_timeout_ms, generation: None });
        } else if has_new_requirements && collection.accepted.is_some() {
            self.stimulate(Stimulus::CollectionChanged { collection: id, requirements });
        }
        self.start_builds();
    }

    /// Lets a collection go.
    pub(crate) fn remove(&mut self, uid: &str) {
        let Some(id) = self.collections.id(uid) else { return };
        let Some(collection) = self.collections.entries.get_mut(&id) else { return };
        collection.is_removed = true;
        collection.attempt += 1;
        if collection.accepted.is_some() {
            self.stimulate(Stimulus::CollectionRemoved { collection: id });
        } else {
            self.on_collection_released(id);
        }
    }

    /// The engine holds nothing of a removed collection any more.
    pub(crate) fn on_collection_released(&mut self, id: CollectionId) {
        self.collections.changed.remove(&id);
        let Some(collection) = self.collections.entries.remove(&id) else { return };
        let uid = collection.request.uid;
        self.collections.by_uid.remove(&uid);
        self.reports.write().unwrap_or_else(PoisonError::into_inner).remove(&uid);
        info!(collection = %collection.request.name, "released");
        // Nobody may be listening any more when the process ends.
        let _ = self.changed.send(uid);
    }

    pub(crate) fn on_collection_changed(&mut self, id: CollectionId) {
        self.collections.changed.insert(id);
    }

    /// A worker joined: what failed to build because of the workers there were is tried again.
    pub(crate) fn retry_failed_builds(&mut self) {
        for (id, collection) in &mut self.collections.entries {
            let Stage::BuildFailed(error) = &collection.stage else { continue };
            if matches!(error.kind.as_str(), "ImportFailed" | "CallableNotFound" | "Raised" | "BuilderLost") {
                collection.wait();
                self.collections.changed.insert(*id);
            }
        }
    }

    /// Starts what can be built now.
    pub(crate) fn start_builds(&mut self) {
        let waiting: Vec<CollectionId> =
            self.collections.entries.iter().filter(|(_, collection)| collection.is_waiting()).map(|(id, _)| *id).collect();
        for id in waiting {
            self.start_build(id);
        }
    }

    fn start_build(&mut self, id: CollectionId) {
        let running = self.collections.entries.values().filter(|collection| collection.builder.is_some()).count();
        let Some(collection) = self.collections.entries.get(&id) else { return };
        let stage = match self.collections.inputs(collection) {
            Err(input) => Stage::WaitingForInput { input },
            Ok(_) if running >= BUILDS_MAX => Stage::WaitingForTurn,
            Ok(inputs) => match self.engine.choose_builder(&collection.request.requirements) {
                None => Stage::WaitingForWorker { workers_running: self.engine.workers_running() },
                Some(worker) => {
                    let Some(entry) = self.workers.get(worker) else { return };
                    let request = builder::encode_build(&collection.request, &inputs);
                    let (address, name) = (entry.address.clone(), entry.name.clone());
                    self.spawn_build(id, worker, address, request);
                    Stage::Building { worker: name }
                }
            },
        };
        if let Some(collection) = self.collections.entries.get_mut(&id)
            && collection.stage != stage
        {
            collection.stage = stage;
            self.collections.changed.insert(id);
        }
    }

    fn spawn_build(&mut self, id: CollectionId, worker: WorkerId, address: crate::dask::WorkerAddress, request: Vec<u8>) {
        let Some(collection) = self.collections.entries.get_mut(&id) else { return };
        collection.attempt += 1;
        collection.builder = Some(worker);
        let attempt = collection.attempt;
        info!(collection = %collection.request.name, worker = %address, "building");
        let (pool, events) = (Arc::clone(&self.pool), self.events.clone());
        tokio::spawn(async move {
            let result = builder::run(&pool, &address, Operation::Build, request).await.map(Box::new);
            let _ = events.send(Event::Built { collection: id, attempt, result }).await;
        });
    }

    /// A build has ended.
    pub(crate) fn on_built(&mut self, id: CollectionId, attempt: u64, result: Result<Box<BuildDocument>, BuildFailure>) {
        let Some(collection) = self.collections.entries.get_mut(&id) else { return };
        if collection.attempt != attempt || collection.is_removed {
            return;
        }
        collection.builder = None;
        self.collections.changed.insert(id);
        match result {
            Ok(document) => self.accept_graph(id, *document),
            Err(BuildFailure::Refused { error, exception: _ }) => {
                // Without the message: what a Secret holds may be in it. The status shows what may be shown.
                warn!(collection = %collection.request.name, kind = %error.kind, line = error.line, "the build failed");
                collection.stage = Stage::BuildFailed(error);
            }
            Err(BuildFailure::BuilderLost { reason }) => {
                warn!(collection = %collection.request.name, %reason, "the worker was lost while it built");
                collection.builders_lost += 1;
                collection.wait();
                if collection.builders_lost >= BUILDERS_LOST_MAX {
                    let message =
                        format!("{BUILDERS_LOST_MAX} workers were lost while they evaluated the source; the last: {reason}");
                    let error = BuildError { kind: "BuilderLost".to_owned(), message, traceback: None, line: None };
                    collection.stage = Stage::BuildFailed(error);
                    collection.builders_lost = 0;
                }
            }
        }
        self.start_builds();
    }

    fn accept_graph(&mut self, id: CollectionId, document: BuildDocument) {
        let Some(collection) = self.collections.entries.get_mut(&id) else { return };
        info!(collection = %collection.request.name, tasks = document.graph.tasks.len(), "the graph is accepted");
        collection.stage = Stage::Accepted;
        collection.builders_lost = 0;
        let outputs = document.outputs.iter().map(|output| (output.name.clone(), output.keys.clone())).collect();
        let requirements = collection.request.requirements.clone();
        let past = collection.past(&document);
        collection.accepted = Some(Accepted { outputs: document.outputs, names: document.graph.names.clone() });
        self.stimulate(Stimulus::CollectionBuilt { collection: id, graph: document.graph, outputs, requirements, past });
    }

    /// Publishes the reports that changed.
    pub(crate) fn publish_reports(&mut self) {
        for id in std::mem::take(&mut self.collections.changed) {
            let Some(collection) = self.collections.entries.get(&id) else { continue };
            let mut report = collection.report(self.engine.summary(id));
            report.refusal = self.workers.refusal().filter(|_| report.lacks_workers()).cloned();
            let report = Arc::new(report);
            let uid = collection.request.uid.clone();
            let mut reports = self.reports.write().unwrap_or_else(PoisonError::into_inner);
            if reports.get(&uid) != Some(&report) {
                reports.insert(uid.clone(), report);
                drop(reports);
                let _ = self.changed.send(uid);
            }
        }
    }
}

impl Collections {
    /// The data of a collection's inputs; the first that is not there yet as an error.
    fn inputs(&self, collection: &Collection) -> Result<BTreeMap<String, Serialized>, String> {
        let mut inputs = BTreeMap::new();
        for (variable, input) in &collection.request.build.inputs {
            let name = format!("{}/{}", input.collection, input.output);
            let (data, _) = self.dataset(&name).ok_or(name)?;
            inputs.insert(variable.clone(), data);
        }
        Ok(inputs)
    }
}

impl Collection {
    fn new(request: CollectionRequest) -> Self {
        Self {
            request,
            stage: Stage::WaitingForTurn,
            attempt: 0,
            builder: None,
            builders_lost: 0,
            accepted: None,
            is_removed: false,
        }
    }

    /// Makes it a candidate for the next build; an answer under way no longer counts.
    fn wait(&mut self) {
        self.stage = Stage::WaitingForTurn;
        self.attempt += 1;
        self.builder = None;
    }

    fn is_waiting(&self) -> bool {
        !self.is_removed
            && matches!(self.stage, Stage::WaitingForWorker { .. } | Stage::WaitingForTurn | Stage::WaitingForInput { .. })
    }

    /// What was counted before, by the keys of the graph.
    fn past(&self, document: &BuildDocument) -> engine::Past {
        let Past { generation: _, retries_used, worker_lost, failures } = &self.request.past;
        let (retries_used, worker_lost) = (*retries_used, *worker_lost);
        if failures.is_empty() {
            return engine::Past { retries_used, worker_lost, failures: Vec::new() };
        }
        let by_name: BTreeMap<&str, u32> = failures.iter().map(|(key, failures)| (key.as_str(), *failures)).collect();
        let keys = document.graph.tasks.iter().map(|task| &task.key);
        let failures = keys.filter_map(|key| {
            let shown = document.graph.names.get(key).map_or_else(|| key.to_string(), |name| name.to_string());
            by_name.get(shown.as_str()).map(|failures| (key.clone(), *failures))
        });
        engine::Past { retries_used, worker_lost, failures: failures.collect() }
    }

    fn report(&self, summary: Option<Summary>) -> Report {
        let mut report = Report {
            generation: self.request.generation,
            revision: self.request.revision.clone(),
            stage: self.stage.clone(),
            summary,
            outputs: Vec::new(),
            refusal: None,
        };
        let Some(accepted) = &self.accepted else { return report };
        report.outputs = accepted
            .outputs
            .iter()
            .map(|output| OutputInfo {
                name: output.name.clone(),
                type_name: output.type_name.clone(),
                keys: output.keys.len() as u64,
            })
            .collect();
        // People know inline tasks by the names they gave them.
        let named = |key: &mut TaskKey| {
            if let Some(name) = accepted.names.get(key) {
                *key = TaskKey::from_text(name);
            }
        };
        if let Some(summary) = &mut report.summary {
            summary.failures.iter_mut().for_each(|failure| named(&mut failure.key));
            summary.retries.tasks.iter_mut().for_each(|(key, _)| named(key));
            summary.unrunnable.iter_mut().for_each(|unrunnable| named(&mut unrunnable.example));
        }
        report
    }
}

/// Outputs as one dict by name, in the form that Dask gives a dict of values; nothing is unpickled for it.
///
/// Source: distributed 2026.8.0, protocol/serialize.py: `deserialize` of `is-collection`.
fn together(outputs: &[BuiltOutput]) -> (Serialized, Vec<TaskKey>) {
    let (mut headers, mut lengths, mut frames, mut keys) = (Vec::new(), Vec::new(), Vec::new(), BTreeSet::new());
    for BuiltOutput { name, data, keys: own, .. } in outputs {
        let mut header =
            Value::from_msgpack(&data.header).ok().and_then(|header| Some(header.as_map()?.to_vec())).unwrap_or_default();
        header.push(("key".into(), name.as_str().into()));
        headers.push(Value::Map(header));
        lengths.push(Value::from(data.frames.len() as u64));
        frames.extend(data.frames.iter().cloned());
        keys.extend(own.iter().cloned());
    }
    let header = Value::map([
        ("is-collection", true.into()),
        ("type-serialized", "dict".into()),
        ("sub-headers", Value::Array(headers)),
        ("frame-lengths", Value::Array(lengths)),
        ("num-sub-frames", (frames.len() as u64).into()),
    ]);
    (Serialized { header: header.to_msgpack().into(), frames }, keys.into_iter().collect())
}
