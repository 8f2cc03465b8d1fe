//! What users declare: collections come, change and go, and every server is told of all that there are.

use std::collections::BTreeMap;

use mainstay::dask::TaskKey;
use mainstay::engine::{CollectionId, Past, Requirements, Stimulus};

use crate::happening::Happening;
use crate::server::Server;
use crate::world::World;

/// As users declare it, with what a status tells of it.
#[derive(Clone, Debug)]
pub(crate) struct Declared {
    pub(crate) outputs: Vec<TaskKey>,
    pub(crate) requirements: Requirements,
    /// Another one when other outputs are wanted.
    pub(crate) revision: u32,
    generation: Option<u64>,
    past: Past,
    /// The server that makes, or has made, the present revision's graph.
    builder: Option<u32>,
    pub(crate) built: Option<(u32, u32)>,
}

#[derive(Debug, Default)]
pub(crate) struct Collections {
    pub(crate) declared: BTreeMap<CollectionId, Declared>,
    /// Removed, and not let go of yet.
    pub(crate) leaving: Vec<CollectionId>,
    next: u32,
}

impl Collections {
    pub(crate) fn why_not_quiet(&self, server: &Server) -> Option<String> {
        let unbuilt = self.declared.iter().find(|(_, one)| one.built != Some((server.number, one.revision)));
        if let Some((id, _)) = unbuilt {
            return Some(format!("{id:?} is not built"));
        }
        self.leaving.first().map(|id| format!("{id:?} was not let go of"))
    }
}

impl World {
    pub(crate) fn declare(&mut self, outputs: Vec<TaskKey>, requirements: Requirements) {
        self.collections.next += 1;
        let id = CollectionId(self.collections.next);
        let declared =
            Declared { outputs, requirements, revision: 0, generation: None, past: Past::default(), builder: None, built: None };
        self.collections.declared.insert(id, declared);
        self.apply(id);
    }

    /// Other outputs are wanted of it.
    pub(crate) fn revise(&mut self, id: CollectionId, outputs: Vec<TaskKey>) {
        if let Some(declared) = self.collections.declared.get_mut(&id) {
            declared.outputs = outputs;
            declared.revision += 1;
            declared.builder = None;
        }
        self.apply(id);
    }

    /// The same is wanted under other conditions.
    pub(crate) fn require(&mut self, id: CollectionId, requirements: Requirements) {
        let Some(declared) = self.collections.declared.get_mut(&id) else { return };
        declared.requirements = requirements.clone();
        if declared.built.is_some_and(|(number, _)| self.server.as_ref().is_some_and(|server| server.number == number)) {
            self.with_server(|server| server.stimulate(Stimulus::CollectionChanged { collection: id, requirements }));
        }
    }

    pub(crate) fn withdraw(&mut self, id: CollectionId) {
        if self.collections.declared.remove(&id).is_some() && self.server.is_some() {
            self.collections.leaving.push(id);
            self.with_server(|server| server.stimulate(Stimulus::CollectionRemoved { collection: id }));
        }
    }

    /// A server that starts is told of all that is declared.
    pub(crate) fn apply_all(&mut self) {
        self.collections.leaving.clear();
        for id in self.collections.declared.keys().copied().collect::<Vec<_>>() {
            self.apply(id);
        }
    }

    fn apply(&mut self, id: CollectionId) {
        let Some(declared) = self.collections.declared.get(&id) else { return };
        let (fifo_timeout_ms, generation) = (declared.requirements.fifo_timeout_ms, declared.generation);
        self.with_server(|server| {
            server.stimulate(Stimulus::CollectionApplied { collection: id, fifo_timeout_ms, generation });
        });
    }

    /// Has graphs made where a worker can make them, and writes down what a status would tell.
    pub(crate) fn start_builds(&mut self) {
        let Some(server) = &self.server else { return };
        let number = server.number;
        let mut starting = Vec::new();
        for (id, declared) in &mut self.collections.declared {
            if let Some(summary) = server.engine.summary(*id) {
                declared.generation = Some(summary.generation);
                let (retries_used, worker_lost) = (summary.retries.used, summary.retries.worker_lost);
                declared.past = Past { retries_used, worker_lost, failures: summary.retries.tasks };
            }
            if declared.builder != Some(number) && server.engine.choose_builder(&declared.requirements).is_some() {
                declared.builder = Some(number);
                starting.push((*id, declared.revision));
            }
        }
        for (collection, revision) in starting {
            let delay = self.random.between(2, 200);
            self.after(delay, Happening::Built { server: number, collection, revision });
        }
    }

    pub(crate) fn on_built(&mut self, number: u32, id: CollectionId, revision: u32) {
        if self.server.as_ref().is_none_or(|server| server.number != number) {
            return;
        }
        let Some(declared) = self.collections.declared.get_mut(&id).filter(|one| one.revision == revision) else { return };
        declared.built = Some((number, revision));
        let Declared { outputs, requirements, past, .. } = declared.clone();
        let graph = self.truth.graph(&outputs);
        let outputs = vec![("out".to_owned(), outputs)];
        self.with_server(|server| {
            server.stimulate(Stimulus::CollectionBuilt { collection: id, graph, outputs, requirements, past });
        });
    }

    pub(crate) fn note_released(&mut self) {
        let Some(server) = &mut self.server else { return };
        for id in std::mem::take(&mut server.released) {
            self.collections.leaving.retain(|leaving| *leaving != id);
        }
    }
}
