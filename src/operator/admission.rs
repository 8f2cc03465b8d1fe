//! Admits workers that run in pods of the namespace.

use std::net::IpAddr;
use std::sync::PoisonError;

use crate::api::labels;
use crate::engine::{Amount, Resources};
use crate::pods::{self, PodFacts, SharedIndex};
use crate::server::{Admission, Departure, End, Facts, Verdict};

/// The value of the role label for workers that only build.
const BUILDER_ROLE: &str = "builder";
/// How the names of workers begin that only build.
const BUILDER_PREFIX: &str = "builder";

/// Judges the workers of one namespace by its pods.
#[derive(Debug)]
pub(crate) struct PodAdmission {
    pub(crate) namespace: String,
    pub(crate) index: SharedIndex,
}

impl Admission for PodAdmission {
    fn admit(&self, peer: IpAddr, name: &str, host: &str) -> Verdict {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        match index.find(&self.namespace, name, &peer.to_string()) {
            // Others would fetch from there, so it must not be somebody else.
            Ok(pod) if host.parse::<IpAddr>().is_ok() && !pod.ips.iter().any(|ip| ip == host) => {
                Verdict::Refused(format!("the worker says that it listens on {host}, which is not its pod's address {peer}"))
            }
            Ok(pod) => Verdict::Admitted(facts(name, pod)),
            // The watch may be behind the worker.
            Err(mismatch) => Verdict::NotYet(mismatch.to_string()),
        }
    }

    fn expected_at(&self, peer: IpAddr) -> Option<String> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let pod = index.find(&self.namespace, "", &peer.to_string()).ok()?;
        pod.is_meant_as_worker.then(|| pod.name.clone())
    }

    fn departure(&self, pod: &str) -> Option<Departure> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        index.departure(&self.namespace, pod).map(|departure| Departure {
            reason: departure.to_string(),
            is_ending: *departure == pods::Departure::Terminating,
            is_certain: *departure != pods::Departure::NodeCordoned,
        })
    }

    fn end(&self, pod: &str) -> Option<End> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        index
            .end(&self.namespace, pod)
            .map(|pods::End { reason, message }| End { reason: reason.clone(), message: message.clone() })
    }

    fn is_ending(&self, pod: &str) -> bool {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        index.get(&self.namespace, pod).is_none_or(|pod| pod.is_ending)
    }

    fn running_pods(&self) -> Option<Vec<String>> {
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        index.is_listed(&self.namespace).then(|| index.running_workers(&self.namespace).map(|pod| pod.name.clone()).collect())
    }
}

fn facts(name: &str, pod: &PodFacts) -> Facts {
    let amounts = pod.resources.iter().filter_map(|(name, amount)| Some((name.clone(), Amount::from_f64(*amount).ok()?)));
    Facts {
        pod: Some(pod.name.clone()),
        node: pod.node.clone(),
        labels: pod.labels.clone(),
        resources: Resources(amounts.collect()),
        builder: pod.labels.get(labels::ROLE).is_some_and(|role| role == BUILDER_ROLE) || name.starts_with(BUILDER_PREFIX),
    }
}
