//! What child workers have: what the command line says, else what the manifests ask for.

use crate::engine::{Amount, Resources};
use crate::local::args::{Labels, LocalArgs};
use crate::local::manifest::Collection;

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
    let selectors = collections.iter().filter_map(|collection| collection.validated.requirements.workers.as_ref());
    selectors.flat_map(|selector| selector.match_labels.clone()).collect()
}

/// As much of each resource as lets every thread run a task that takes most of it.
fn taken_resources(collections: &[Collection], threads: u32) -> Resources {
    let mut resources = Resources::default();
    for collection in collections {
        for (name, amount) in collection.validated.requirements.resources.iter().filter(|(_, amount)| !amount.is_zero()) {
            // At most the largest amount there is, which is more than any task may take.
            let all = Amount::from_f64(amount.as_f64() * f64::from(threads)).unwrap_or(Amount::MAX);
            let offered = resources.0.entry(name.to_owned()).or_default();
            *offered = all.max(*offered);
        }
    }
    resources
}
