//! What is promised, and looked at.

use std::collections::BTreeSet;

use mainstay::dask::TaskKey;
use mainstay::engine::{Engine, Exception, Instruction};

use crate::client::Future;
use crate::world::World;

/// So many deaths of workers are forgiven to a task.
const DEATHS_FORGIVEN: u32 = 3;

/// What was under way before the engine acted.
pub(crate) struct Before {
    processing: BTreeSet<TaskKey>,
}

impl Before {
    pub(crate) fn of(engine: &Engine) -> Self {
        Self { processing: engine.workers().flat_map(|worker| engine.processing(worker.id)).collect() }
    }

    /// Nothing that is ready and that any worker may run was passed over for something that its user finds less urgent, unless
    /// something more urgent stood before it that no worker had room for.
    pub(crate) fn check_order(&self, engine: &Engine, instructions: &[Instruction]) {
        let mut least: Option<(f64, &TaskKey)> = None;
        for instruction in instructions {
            let Instruction::ComputeTask { run_id, .. } = instruction else { continue };
            let Some(task) = engine.compute_task(*run_id) else { continue };
            // What reads something may go before others where that is.
            if task.dependencies().len() > 0 || self.processing.contains(task.key()) {
                continue;
            }
            if least.is_none_or(|(user, _)| task.priority().user < user) {
                least = Some((task.priority().user, task.key()));
            }
        }
        let Some((user, key)) = least else { return };
        let queued = || engine.keys().filter(|key| engine.task_state(key) == Some("queued"));
        let obstacle = queued().filter(|key| !engine.is_plain(key)).filter_map(|key| engine.priority(key)).min();
        for waiting in queued().filter(|key| engine.is_plain(key)) {
            let priority = engine.priority(waiting).expect("it is queued");
            let is_behind = obstacle.is_some_and(|obstacle| obstacle < priority);
            assert!(priority.user <= user || is_behind, "{waiting} waits while {key} runs, which is less urgent");
        }
    }
}

impl World {
    /// All that is wanted has come to its end, and nothing else is left.
    pub(crate) fn check_settled(&self) {
        let server = self.server.as_ref().expect("it is quiet");
        let engine = &server.engine;
        for (address, process) in &self.processes {
            let id = server.worker_at(process.link).unwrap_or_else(|| panic!("the server does not know {address}"));
            let known: BTreeSet<TaskKey> = engine.has_what(id).into_iter().collect();
            let held: BTreeSet<TaskKey> = process.machine.data().keys().cloned().collect();
            assert_eq!(known, held, "what {address} holds");
            for (key, value) in process.machine.data() {
                assert_eq!(*value, self.truth.of(key).value, "{key} on {address}");
            }
            let view = engine.worker(id).expect("a worker");
            assert!(view.used.is_empty() && view.processing == 0, "nothing runs, so nothing is taken: {view:?}");
        }
        assert_eq!(engine.workers().count(), self.processes.len(), "only workers that are there are known");
        let retries = self.collections.declared.values().map(|declared| declared.requirements.retries);
        let retries = retries.min().unwrap_or_default();
        let retries = if self.clients.is_empty() { retries } else { 0 };
        let mut wanted: BTreeSet<&TaskKey> = BTreeSet::new();
        for (id, declared) in &self.collections.declared {
            let summary = engine.summary(*id).unwrap_or_else(|| panic!("{id:?} is known"));
            assert_eq!(summary.outputs[0].keys, declared.outputs.len() as u64);
            assert_eq!(summary.outputs[0].in_memory + summary.outputs[0].erred, summary.outputs[0].keys, "{id:?} has settled");
            wanted.extend(&declared.outputs);
        }
        for (number, client) in &self.clients {
            for (key, future) in client.futures.iter().filter(|(_, future)| **future != Future::Cancelled) {
                let told = match engine.task_state(key) {
                    Some("memory") => Future::Finished,
                    Some("erred") => Future::Error,
                    other => panic!("Client {number} waits for {key}, which is {other:?}"),
                };
                assert_eq!(*future, told, "Client {number} and {key}");
            }
            wanted.extend(client.futures.keys());
        }
        for process in self.processes.values() {
            let useless = process.machine.data().keys().find(|key| !wanted.contains(key));
            assert_eq!(useless, None, "{} holds what nobody wants", process.profile.name);
        }
        let is_expected = |key: &&&TaskKey| {
            let declared = self.collections.declared.values().any(|declared| declared.outputs.contains(key));
            declared || self.clients.values().any(|client| client.futures.get(**key).is_some_and(|one| *one != Future::Cancelled))
        };
        wanted.iter().filter(is_expected).for_each(|key| self.check_outcome(key, retries));
    }

    fn check_outcome(&self, key: &TaskKey, retries: u32) {
        let server = self.server.as_ref().expect("it is quiet");
        let engine = &server.engine;
        match engine.task_state(key) {
            Some("memory") => assert!(!self.truth.is_doomed(key), "{key} cannot be there"),
            Some("erred") => {
                let blamed = engine.blamed(key).expect("an erred task has somebody to blame");
                match &engine.failure(key).expect("an erred task says why").exception {
                    Exception::KilledWorker { .. } => {
                        let deaths = server.deaths.get(blamed).copied().unwrap_or_default();
                        assert!(deaths > DEATHS_FORGIVEN, "{blamed} is blamed for {deaths} deaths");
                    }
                    Exception::Raised { .. } => {
                        assert!(!self.truth.is_certain(key, retries), "{key} has failed although {retries} retries are enough");
                    }
                    other => panic!("{key}: {other:?}"),
                }
            }
            other => panic!("{key} is wanted and {other:?}"),
        }
    }
}
