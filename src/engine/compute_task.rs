//! What a worker has to know of a run, read where the engine keeps it.

use crate::dask::{Priority, RunSpec, TaskKey, WorkerAddress};
use crate::engine::requirement_table::Requirement;
use crate::engine::requirements::Resources;
use crate::engine::task::{Run, Task};
use crate::engine::{Engine, RunId};

/// A run that a worker is to be told of.
#[derive(Clone, Copy, Debug)]
pub struct ComputeTask<'e> {
    engine: &'e Engine,
    task: &'e Task,
    run_spec: &'e RunSpec,
    run: &'e Run,
}

/// An input of a run.
#[derive(Clone, Copy, Debug)]
pub struct Dependency<'e> {
    engine: &'e Engine,
    task: &'e Task,
}

impl Engine {
    /// What an instruction to compute a task is about; `None` when that run was given up since.
    pub fn compute_task(&self, run_id: RunId) -> Option<ComputeTask<'_>> {
        let task = self.tasks.get(run_id.task())?;
        let run_spec = task.run_spec.as_ref()?;
        let run = task.run().filter(|run| run.run_id == run_id)?;
        Some(ComputeTask { engine: self, task, run_spec, run })
    }
}

impl<'e> ComputeTask<'e> {
    pub fn key(&self) -> &'e TaskKey {
        &self.task.key
    }

    pub fn run_id(&self) -> RunId {
        self.run.run_id
    }

    pub fn dependencies(&self) -> impl ExactSizeIterator<Item = Dependency<'e>> + Clone + use<'e> {
        let engine = self.engine;
        self.task.dependencies.iter().map(move |id| Dependency { engine, task: &engine.tasks[*id] })
    }

    pub fn priority(&self) -> Priority {
        self.task.priority
    }

    pub fn run_spec(&self) -> &'e RunSpec {
        self.run_spec
    }

    pub fn resources(&self) -> &'e Resources {
        &self.requirement().resources
    }

    pub fn is_actor(&self) -> bool {
        self.task.actor
    }

    pub fn executor(&self) -> Option<&'e str> {
        self.requirement().executor.as_deref()
    }

    /// That by which its worker was chosen; that of the task may have changed since.
    fn requirement(&self) -> &'e Requirement {
        self.engine.requirements.get(self.run.requirement)
    }
}

impl<'e> Dependency<'e> {
    pub fn key(&self) -> &'e TaskKey {
        &self.task.key
    }

    pub fn nbytes(&self) -> u64 {
        self.task.nbytes()
    }

    /// Who holds it and can be asked; somebody can.
    pub fn holders(&self) -> impl ExactSizeIterator<Item = &'e WorkerAddress> + use<'e> {
        let engine = self.engine;
        engine.speaking(self.task.holders()).into_iter().map(move |worker| &engine.workers[&worker].profile.address)
    }
}
