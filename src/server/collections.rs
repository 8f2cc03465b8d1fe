//! The collections that a namespace's server was asked to keep, from request to graph.
//!
//! ```text
//! apply ─► WaitingForInput ─► WaitingForWorker ─► Building ─┬► Accepted (the engine has the graph)
//!              ▲                    ▲                       ├► BuildFailed (until an edit, another input, or a worker joins)
//!              └────────────────────┴─ builder lost ────────┘
//! ```
//!
//! A graph is made anew when the outputs that it reads are others. `inputs` says how those stand, `collection` what follows.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tracing::{info, warn};

use crate::dask::{Serialized, TaskKey};
use crate::engine::{CollectionId, Stimulus};
use crate::server::build_document::{BuildDocument, BuiltOutput};
use crate::server::builder::{self, BUILDERS_LOST_MAX, BuildFailure, Builder};
use crate::server::collection::{Accepted, Collection, Next};
use crate::server::documents;
use crate::server::event::Event;
use crate::server::handle::{BuildError, CollectionRequest, Report, Stage};
use crate::server::inputs::{self, Verdict, Versions};
use crate::server::namespace::Namespace;
use crate::wire::value::Value;

/// Builds that run at once; each is a thread on a worker.
const BUILDS_MAX: usize = 8;
/// How many times as long as a look takes the next one waits.
const LOOK_PAUSE: u32 = 9;

/// All collections by number and by uid.
#[derive(Debug, Default)]
pub(crate) struct Collections {
    /// Each by itself: the room of a map is often half empty.
    entries: BTreeMap<CollectionId, Box<Collection>>,
    by_uid: BTreeMap<String, CollectionId>,
    next: u32,
    /// All and only collections whose report may be out of date.
    changed: BTreeSet<CollectionId>,
    look: Look,
}

/// When to look for what can be built.
#[derive(Clone, Copy, Debug, Default)]
struct Look {
    is_due: bool,
    /// Of the last one.
    ended: Option<Instant>,
    took: Duration,
}

impl Collections {
    fn id(&self, uid: &str) -> Option<CollectionId> {
        self.by_uid.get(uid).copied()
    }

    fn live(&self) -> impl Iterator<Item = &Collection> {
        self.entries.values().map(Box::as_ref).filter(|collection| !collection.is_removed)
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

    /// When to look for what can be built, if something asks for it and nobody is waited for.
    pub(crate) fn next_look(&self) -> Option<Instant> {
        let Look { is_due, ended, took } = self.look;
        is_due.then(|| ended.map_or_else(Instant::now, |ended| ended + took * LOOK_PAUSE))
    }

    /// Whether a graph is still to come.
    pub(crate) fn await_graphs(&self) -> bool {
        let is_to_come = |stage: &Stage| !matches!(stage, Stage::Accepted | Stage::BuildFailed(_) | Stage::InputCycle { .. });
        self.live().any(|collection| is_to_come(&collection.stage))
    }

    /// The documents of the graphs that the engine has.
    pub(crate) fn document_names(&self) -> BTreeSet<String> {
        self.live().filter_map(|collection| Some(collection.accepted.as_ref()?.document.clone())).collect()
    }

    /// The copy of a graph that was to be read is of no use.
    pub(crate) fn build_again(&mut self, id: CollectionId, attempt: u64) {
        if let Some(collection) = self.entries.get_mut(&id).filter(|collection| collection.attempt == attempt) {
            collection.wait();
            self.changed.insert(id);
        }
    }

    /// Has a report made anew.
    pub(crate) fn report_again(&mut self, id: CollectionId) {
        if self.entries.contains_key(&id) {
            self.changed.insert(id);
        }
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
    pub(crate) fn apply(&mut self, request: Arc<CollectionRequest>) {
        let collections = &mut self.collections;
        let Some(id) = collections.id(&request.uid) else {
            let id = CollectionId(collections.next);
            collections.next += 1;
            collections.by_uid.insert(request.uid.clone(), id);
            let (generation, fifo_timeout_ms) = (request.past.generation, request.requirements.fifo_timeout_ms);
            collections.entries.insert(id, Box::new(Collection::new(request)));
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
        self.stimulate(Stimulus::CollectionRemoved { collection: id });
        self.start_builds();
    }

    /// The engine holds nothing of a removed collection any more.
    pub(crate) fn on_collection_released(&mut self, id: CollectionId) {
        self.collections.changed.remove(&id);
        let Some(collection) = self.collections.entries.remove(&id) else { return };
        let uid = collection.request.uid.clone();
        self.collections.by_uid.remove(&uid);
        self.reports.write().unwrap_or_else(PoisonError::into_inner).remove(&uid);
        info!(collection = %collection.request.name, "released");
        self.drop_documents(collection.accepted.map(|accepted| accepted.document).into_iter().collect());
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

    /// Has what can be built started at the end of the turn, and what everything else waits for noted.
    pub(crate) fn start_builds(&mut self) {
        self.collections.look.is_due = true;
    }

    /// Looks at all collections if something happened that may concern them.
    ///
    /// A look takes longer the more collections there are, and each change asks for one. So the next one waits until the
    /// last has taken no more than a tenth of the time.
    pub(crate) fn look_if_due(&mut self) {
        let next = self.collections.next_look();
        let began = Instant::now();
        if next.is_none_or(|at| began < at) || self.reunion.holds() {
            return;
        }
        // What goes on with the graph that it has may be what others wait for.
        while self.look_at_builds() {}
        self.collections.look = Look { is_due: false, ended: Some(Instant::now()), took: began.elapsed() };
    }

    /// Returns whether a collection has come to rest by that.
    fn look_at_builds(&mut self) -> bool {
        let mut has_resumed = false;
        let mut running = self.collections.builds_running();
        for (id, verdict) in self.collections.judge_inputs() {
            let Some(collection) = self.collections.entries.get_mut(&id) else { continue };
            let missing = collection.missing_input().cloned();
            let next = collection.next(verdict);
            if collection.missing_input() != missing.as_ref() {
                self.collections.changed.insert(id);
            }
            let stage = match next {
                Next::Stay(stage) => stage,
                Next::Resume => {
                    has_resumed = true;
                    self.resume(id);
                    Stage::Accepted
                }
                Next::Build(_) if running >= BUILDS_MAX => Stage::WaitingForTurn,
                Next::Build(inputs) => {
                    let stage = self.start_build(id, inputs);
                    running += usize::from(matches!(stage, Stage::Building { .. }));
                    stage
                }
            };
            self.set_stage(id, stage);
        }
        has_resumed
    }

    fn set_stage(&mut self, id: CollectionId, stage: Stage) {
        if let Some(collection) = self.collections.entries.get_mut(&id)
            && collection.stage != stage
        {
            collection.stage = stage;
            self.collections.changed.insert(id);
        }
    }

    /// Goes on with the graph that the engine has; the requirements may have changed meanwhile.
    fn resume(&mut self, id: CollectionId) {
        let Some(collection) = self.collections.entries.get(&id) else { return };
        let requirements = collection.request.requirements.clone();
        self.stimulate(Stimulus::CollectionChanged { collection: id, requirements });
    }

    fn start_build(&mut self, id: CollectionId, inputs: Versions) -> Stage {
        let Some(collection) = self.collections.entries.get_mut(&id) else { return Stage::WaitingForTurn };
        let name = documents::name_of(&collection.request, &inputs);
        let attempt = collection.attempt + 1;
        if let Some(worker) = self.fetch_document(id, attempt, name) {
            if let Some(collection) = self.collections.entries.get_mut(&id) {
                (collection.attempt, collection.build, collection.reads_copy) = (attempt, Some(inputs), true);
            }
            return Stage::Building { worker };
        }
        let Some(collection) = self.collections.entries.get(&id) else { return Stage::WaitingForTurn };
        let Some(worker) = self.engine.choose_builder(&collection.request.requirements) else {
            return Stage::WaitingForWorker { workers_running: self.engine.workers_running() };
        };
        let Some(entry) = self.workers.get(worker) else { return Stage::WaitingForTurn };
        let request = builder::encode_build(&collection.request, &self.collections.data_of_inputs(collection));
        let name = entry.name.clone();
        let Some(builder) = self.workers.builder(worker, collection.builders_lost > 0) else { return Stage::WaitingForTurn };
        self.spawn_build(id, inputs, builder, request);
        Stage::Building { worker: name }
    }

    fn spawn_build(&mut self, id: CollectionId, inputs: Versions, builder: Builder, request: Vec<u8>) {
        let Some(collection) = self.collections.entries.get_mut(&id) else { return };
        collection.attempt += 1;
        collection.build = Some(inputs);
        let attempt = collection.attempt;
        info!(collection = %collection.request.name, worker = %builder.address, "building");
        let (pool, events) = (Arc::clone(&self.pool), self.events.clone());
        self.pool.spawn(async move {
            let (result, raw) = match builder::build(&pool, &builder, request).await {
                Ok((document, raw)) => (Ok(Box::new(document)), Some(raw)),
                Err(failure) => (Err(failure), None),
            };
            let _ = events.send(Event::Built { collection: id, attempt, result, raw }).await;
        });
    }

    /// A build has ended.
    pub(crate) fn on_built(
        &mut self,
        id: CollectionId,
        attempt: u64,
        result: Result<Box<BuildDocument>, BuildFailure>,
        raw: Option<Bytes>,
    ) {
        let Some(collection) = self.collections.entries.get_mut(&id) else { return };
        if collection.attempt != attempt || collection.is_removed {
            return;
        }
        let inputs = collection.build.take().unwrap_or_default();
        collection.reads_copy = false;
        self.collections.changed.insert(id);
        match result {
            Ok(document) => {
                let name = documents::name_of(&collection.request, &inputs);
                let former = collection.accepted.as_ref().map(|accepted| accepted.document.clone());
                self.accept_graph(id, *document, inputs, name.clone());
                self.drop_documents(former.into_iter().filter(|former| *former != name).collect());
                if let Some(raw) = raw {
                    self.copy_document(name, Some(raw));
                }
            }
            Err(BuildFailure::Refused { error, exception: _ }) => {
                // Without the message: what a Secret holds may be in it. The status shows what may be shown.
                warn!(collection = %collection.request.name, kind = %error.kind, line = error.line, "the build failed");
                collection.fail(error, inputs);
            }
            Err(BuildFailure::BuilderLost { reason }) => {
                warn!(collection = %collection.request.name, %reason, "the worker was lost while it built");
                collection.builders_lost += 1;
                collection.wait();
                if collection.builders_lost >= BUILDERS_LOST_MAX {
                    let message =
                        format!("{BUILDERS_LOST_MAX} workers were lost while they evaluated the source; the last: {reason}");
                    let error = BuildError { kind: "BuilderLost".to_owned(), message, traceback: None, line: None };
                    collection.fail(error, inputs);
                    collection.builders_lost = 0;
                }
            }
        }
        self.start_builds();
    }

    fn accept_graph(&mut self, id: CollectionId, document: BuildDocument, inputs: Versions, name: String) {
        let Some(collection) = self.collections.entries.get_mut(&id) else { return };
        info!(collection = %collection.request.name, tasks = document.graph.tasks.len(), "the graph is accepted");
        collection.stage = Stage::Accepted;
        collection.builders_lost = 0;
        let outputs = document.outputs.iter().map(|output| (output.name.clone(), output.keys.clone())).collect();
        let requirements = collection.request.requirements.clone();
        let revision = collection.request.revision.clone();
        let past = collection.past(&document);
        let names = document.graph.names.clone();
        let remade = collection.accepted.as_ref().filter(|old| old.revision == revision);
        let remade_at = remade.and_then(|_| self.engine.summary(id)).map(|summary| summary.losses);
        let accepted = Accepted { revision, inputs, outputs: document.outputs, names, document: name, remade_at };
        collection.accepted = Some(Box::new(accepted));
        self.shuffles.declare(document.shuffles);
        self.stimulate(Stimulus::CollectionBuilt { collection: id, graph: document.graph, outputs, requirements, past });
    }

    /// Publishes the reports that changed, all at once: they speak of one another.
    pub(crate) fn publish_reports(&mut self) {
        // Until then what an earlier server reported says more than what is known here.
        if self.reunion.holds() || self.collections.changed.is_empty() {
            return;
        }
        let changed = std::mem::take(&mut self.collections.changed);
        let made: Vec<(String, Report)> = changed.into_iter().filter_map(|id| self.report(id)).collect();
        let mut told = Vec::new();
        let mut reports = self.reports.write().unwrap_or_else(PoisonError::into_inner);
        for (uid, report) in made {
            if reports.get(&uid).map(AsRef::as_ref) != Some(&report) {
                reports.insert(uid.clone(), Arc::new(report));
                told.push(uid);
            }
        }
        drop(reports);
        for uid in told {
            let _ = self.changed.send(uid);
        }
    }

    fn report(&self, id: CollectionId) -> Option<(String, Report)> {
        // One whose graph is about to be read from a copy is about to be what it was.
        let collection = self.collections.entries.get(&id).filter(|collection| !collection.reads_copy)?;
        let mut report = collection.report(self.engine.summary(id));
        report.lost_workers = self.losses.of(id);
        report.refusal = self.workers.refusal().filter(|_| report.lacks_workers()).cloned();
        Some((collection.request.uid.clone(), report))
    }
}

impl Collections {
    /// How the inputs of each collection stand.
    fn judge_inputs(&self) -> Vec<(CollectionId, Verdict)> {
        let live = || self.entries.iter().filter(|(_, collection)| !collection.is_removed);
        let nodes: Vec<_> = live().map(|(_, collection)| collection.node()).collect();
        live().map(|(id, _)| *id).zip(inputs::judge(&nodes)).collect()
    }

    fn builds_running(&self) -> usize {
        self.live().filter(|collection| collection.build.is_some()).count()
    }

    /// The data of a collection's inputs, all of which are there.
    fn data_of_inputs(&self, collection: &Collection) -> BTreeMap<String, Serialized> {
        let inputs = collection.request.build.inputs.iter();
        let data = inputs.filter_map(|(variable, input)| {
            let (data, _) = self.dataset(&format!("{}/{}", input.collection, input.output))?;
            Some((variable.clone(), data))
        });
        data.collect()
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
