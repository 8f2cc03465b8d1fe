//! What child workers have: what the command line says, else what the manifests ask for.

use crate::engine::{Amount, Resources, WorkerSelector};
use crate::local::args::{Labels, LocalArgs};
use crate::local::manifest::Collection;
use crate::server::{InlineTask, Source};

/// The labels and resources of every child worker.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Offer {
    pub(crate) labels: Labels,
    pub(crate) resources: Resources,
    /// Something in it comes from the manifests.
    is_derived: bool,
}

impl Offer {
    /// A manifest is written for the pods of a cluster; on this machine its workers are as it wants them, unless told otherwise.
    pub(crate) fn new(args: &LocalArgs, collections: &[Collection]) -> Self {
        let labels = args.labels.clone().unwrap_or_else(|| matched_labels(collections));
        let resources = args.resources.clone().unwrap_or_else(|| taken_resources(collections, args.threads));
        let is_derived = (args.labels.is_none() && !labels.is_empty()) || (args.resources.is_none() && !resources.is_empty());
        Self { labels, resources, is_derived }
    }

    /// What to tell about it, if it was not asked for.
    pub(crate) fn notice(&self) -> Option<String> {
        let labels = self.labels.iter().map(|(key, value)| format!("{key}={value}"));
        let resources = self.resources.iter().map(|(name, amount)| format!("{name}={amount}"));
        let all = labels.chain(resources).collect::<Vec<_>>().join(" ");
        self.is_derived.then(|| format!("Workers have {all}, as the manifest wants it; --labels and --resources say otherwise."))
    }
}

fn matched_labels(collections: &[Collection]) -> Labels {
    collections.iter().flat_map(selectors).flat_map(|selector| selector.match_labels.clone()).collect()
}

/// As much of each resource as lets every thread run a task that takes most of it.
fn taken_resources(collections: &[Collection], threads: u32) -> Resources {
    let mut resources = Resources::default();
    for (name, amount) in collections.iter().flat_map(amounts).filter(|(_, amount)| *amount > 0.0) {
        // At most the largest amount there is, which is more than any task may take.
        let all = Amount::from_f64(amount * f64::from(threads)).unwrap_or(Amount::MAX);
        let offered = resources.0.entry(name.to_owned()).or_default();
        *offered = all.max(*offered);
    }
    resources
}

/// The workers that a collection, its overrides and its inline tasks ask for.
fn selectors(collection: &Collection) -> impl Iterator<Item = &WorkerSelector> {
    let requirements = &collection.validated.requirements;
    let overrides = requirements.overrides.as_slice().iter().filter_map(|one| one.conditions.workers.as_ref());
    let tasks = inline_tasks(collection).iter().filter_map(|task| task.workers.as_ref());
    requirements.workers.iter().chain(overrides).chain(tasks)
}

/// What they take.
fn amounts(collection: &Collection) -> impl Iterator<Item = (&str, f64)> {
    let requirements = &collection.validated.requirements;
    let overrides = requirements.overrides.as_slice().iter().filter_map(|one| one.conditions.resources.as_ref());
    let exact = [&requirements.resources].into_iter().chain(overrides);
    let exact = exact.flat_map(|resources| resources.iter().map(|(name, amount)| (name, amount.as_f64())));
    let tasks = inline_tasks(collection).iter().filter_map(|task| task.resources.as_ref());
    exact.chain(tasks.flat_map(|resources| resources.iter().map(|(name, amount)| (name.as_str(), *amount))))
}

fn inline_tasks(collection: &Collection) -> &[InlineTask] {
    match &collection.validated.build.source {
        Source::Tasks(tasks) => tasks,
        Source::Python { .. } | Source::Entrypoint { .. } => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::PersistedCollectionSpec;
    use crate::controller::validate::validate;

    #[test]
    fn workers_have_what_single_tasks_and_overrides_want() {
        let spec: PersistedCollectionSpec = serde_json::from_value(serde_json::json!({
            "source": {"tasks": [
                {"key": "a", "call": "m:f", "resources": {"GPU": 2}, "workers": {"matchLabels": {"disk": "nvme"}}},
                {"key": "b", "call": "m:f", "resources": {"GPU": 1}},
            ]},
            "overrides": [{"keys": "b", "resources": {"IO": 0.5}, "workers": {"matchLabels": {"zone": "a"}}}],
        }))
        .unwrap();
        let collections = [Collection { name: "x".to_owned(), validated: validate("x", &spec, None).unwrap() }];
        assert_eq!(taken_resources(&collections, 2).to_string(), "GPU: 4, IO: 1");
        let labels: Vec<String> = matched_labels(&collections).iter().map(|(key, value)| format!("{key}={value}")).collect();
        assert_eq!(labels, ["disk=nvme", "zone=a"]);
    }
}
