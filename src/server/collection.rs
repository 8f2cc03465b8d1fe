//! One collection that a namespace's server was asked to keep: what it is asked for, what there is, and what to do next.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::dask::TaskKey;
use crate::engine::{self, Summary};
use crate::server::build_document::{BuildDocument, BuiltOutput};
use crate::server::handle::{BuildError, CollectionRequest, OutputInfo, Past, Report, Stage};
use crate::server::inputs::{MissingInput, Node, Standing, Verdict, Versions};

/// One collection.
#[derive(Debug)]
pub(crate) struct Collection {
    pub(crate) request: Arc<CollectionRequest>,
    pub(crate) stage: Stage,
    /// Counts builds: the answer of an older one is ignored.
    pub(crate) attempt: u64,
    /// What the build under way is made of.
    pub(crate) build: Option<Versions>,
    /// Whether that build reads a copy of the graph.
    pub(crate) reads_copy: bool,
    pub(crate) builders_lost: u32,
    /// What the last build that failed was made of.
    failed_on: Versions,
    pub(crate) accepted: Option<Box<Accepted>>,
    /// An input that has gone since the accepted graph was made of it.
    missing_input: Option<MissingInput>,
    /// To be forgotten as soon as the engine has let go.
    pub(crate) is_removed: bool,
}

/// What the builder gave for the graph that the engine has.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) revision: String,
    pub(crate) inputs: Versions,
    pub(crate) outputs: Vec<BuiltOutput>,
    /// What the document is called that the graph was read from.
    pub(crate) document: String,
    /// The manifest's names of inline tasks.
    pub(crate) names: BTreeMap<TaskKey, Arc<str>>,
    /// How many outputs had been lost when it took the place of another graph of this revision.
    pub(crate) remade_at: Option<u64>,
}

/// What to do about a collection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing; this is where it stands.
    Stay(Stage),
    /// The graph that the engine has is the right one after all.
    Resume,
    /// Its graph must be made, of these inputs.
    Build(Versions),
}

impl Collection {
    pub(crate) fn new(request: Arc<CollectionRequest>) -> Self {
        Self {
            request,
            stage: Stage::WaitingForTurn,
            attempt: 0,
            build: None,
            reads_copy: false,
            builders_lost: 0,
            failed_on: Versions::new(),
            accepted: None,
            missing_input: None,
            is_removed: false,
        }
    }

    /// Makes it a candidate for the next build; an answer under way no longer counts.
    pub(crate) fn wait(&mut self) {
        self.stage = Stage::WaitingForTurn;
        self.give_up_build();
    }

    fn give_up_build(&mut self) {
        self.attempt += 1;
        self.build = None;
        self.reads_copy = false;
    }

    /// Its graph cannot be made of these inputs, until something changes.
    pub(crate) fn fail(&mut self, error: BuildError, inputs: Versions) {
        self.stage = Stage::BuildFailed(error);
        self.failed_on = inputs;
    }

    /// What to do, given how its inputs stand. Notes what is missing; a build of other inputs no longer counts.
    pub(crate) fn next(&mut self, verdict: Verdict) -> Next {
        self.missing_input = None;
        if let Verdict::There { versions, .. } = &verdict
            && self.build.as_ref() == Some(versions)
        {
            return Next::Stay(self.stage.clone());
        }
        if self.build.is_some() {
            self.give_up_build();
        }
        let kept = self.accepted.as_ref().filter(|accepted| accepted.revision == self.request.revision);
        let is_failed = matches!(self.stage, Stage::BuildFailed(_));
        match verdict {
            Verdict::Cycle(cycle) => Next::Stay(Stage::InputCycle { cycle }),
            Verdict::There { versions, .. } if kept.is_some_and(|accepted| accepted.inputs == versions) => self.keep(None),
            Verdict::There { versions, .. } if is_failed && self.failed_on == versions => Next::Stay(self.stage.clone()),
            Verdict::There { versions, unsettled: None } => Next::Build(versions),
            Verdict::There { .. } | Verdict::Missing(_) if is_failed => Next::Stay(self.stage.clone()),
            // Until then what it was made of is still there.
            Verdict::There { unsettled: Some(_), .. } if kept.is_some() => self.keep(None),
            Verdict::Missing(missing) if kept.is_some() => self.keep(Some(missing)),
            Verdict::There { unsettled: Some(missing), .. } | Verdict::Missing(missing) => {
                Next::Stay(Stage::WaitingForInput(missing))
            }
        }
    }

    fn keep(&mut self, missing: Option<MissingInput>) -> Next {
        self.missing_input = missing;
        if self.stage == Stage::Accepted { Next::Stay(Stage::Accepted) } else { Next::Resume }
    }

    pub(crate) fn missing_input(&self) -> Option<&MissingInput> {
        self.missing_input.as_ref()
    }

    /// What those see who read it.
    pub(crate) fn node(&self) -> Node<'_> {
        let (standing, made_of) = match &self.stage {
            Stage::Accepted => (Standing::Settled, self.accepted.as_ref().map(|accepted| &accepted.inputs)),
            Stage::BuildFailed(error) => (Standing::Failed(error), Some(&self.failed_on)),
            _ => (Standing::UnderWay, None),
        };
        Node {
            name: &self.request.name,
            reads: &self.request.build.inputs,
            standing,
            outputs: self
                .accepted
                .as_ref()
                .map(|accepted| accepted.outputs.iter().map(|output| (output.name.as_str(), output.version)).collect()),
            made_of,
        }
    }

    /// What was counted before, by the keys of the graph.
    pub(crate) fn past(&self, document: &BuildDocument) -> engine::Past {
        let Past { generation: _, retries_used, worker_lost, failures } = &self.request.past;
        let (retries_used, worker_lost) = (*retries_used, *worker_lost);
        if failures.is_empty() {
            return engine::Past { retries_used, worker_lost, failures: Vec::new() };
        }
        let by_name: BTreeMap<&str, u32> = failures.iter().map(|(key, failures)| (key.as_str(), *failures)).collect();
        let keys = document.graph.tasks.iter().map(|task| document.graph.key(task));
        let failures = keys.filter_map(|key| {
            let shown = document.graph.names.get(key).map_or_else(|| key.to_string(), |name| name.to_string());
            by_name.get(shown.as_str()).map(|failures| (key.clone(), *failures))
        });
        engine::Past { retries_used, worker_lost, failures: failures.collect() }
    }

    pub(crate) fn report(&self, summary: Option<Summary>) -> Report {
        let mut report = Report {
            generation: self.request.generation,
            revision: self.request.revision.clone(),
            stage: self.stage.clone(),
            summary: summary.map(Box::new),
            outputs: Vec::new(),
            refusal: None,
            lost_workers: Vec::new(),
            missing_input: self.missing_input.clone(),
            is_remade: false,
        };
        let Some(accepted) = &self.accepted else { return report };
        report.is_remade =
            accepted.remade_at.is_some() && accepted.remade_at == report.summary.as_ref().map(|summary| summary.losses);
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

#[cfg(test)]
mod tests;
