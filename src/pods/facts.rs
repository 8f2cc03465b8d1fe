//! What matters of a pod.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::departure::{self, Departure};
use super::end::{self, End};
use crate::api::labels;

/// Container limits that are Dask resources by another name.
const LIMITS: [(&str, &str); 3] = [("nvidia.com/gpu", "GPU"), ("amd.com/gpu", "GPU"), ("gpu.intel.com/i915", "GPU")];

/// Reasons of a waiting container that it will not get over by itself.
const TROUBLES: [&str; 8] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "ErrImageNeverPull",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
    "CrashLoopBackOff",
];

/// A pod, as far as it matters to workers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodFacts {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub ips: Vec<String>,
    /// The node that it was put on.
    pub node: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// Dask resources from its annotation and the limits of its containers; the annotation goes first.
    pub resources: BTreeMap<String, f64>,
    /// Why its annotation was not taken, in words for a person.
    pub resources_error: Option<String>,
    /// Shares its address with its node, so an address alone does not name it.
    pub on_host_network: bool,
    /// It is being deleted, or has ended.
    pub is_ending: bool,
    /// Its containers run and are ready.
    pub is_ready: bool,
    /// What announces its end.
    pub departure: Option<Departure>,
    /// How it ended, or its container did last.
    pub end: Option<End>,
    /// It says, or its command does, that it is a Dask worker.
    pub is_meant_as_worker: bool,
    pub trouble: Option<Trouble>,
}

/// What keeps a pod from running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// The kubelet's or the Kubernetes scheduler's reason: `ImagePullBackOff`, `Unschedulable`, …
    pub reason: String,
    /// Its message, possibly empty.
    pub message: String,
}

impl PodFacts {
    /// What a pod says. `None` for one without a name, which no API server sends.
    pub fn of(pod: &Pod) -> Option<Self> {
        let metadata = &pod.metadata;
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        let containers = spec.map(|spec| spec.containers.as_slice()).unwrap_or_default();
        let mut resources = resources_of_limits(containers);
        let mut resources_error = None;
        let annotation = metadata.annotations.as_ref().and_then(|annotations| annotations.get(labels::RESOURCES));
        match annotation.map(|text| parse_resources(text)) {
            Some(Ok(declared)) => resources.extend(declared),
            Some(Err(error)) => resources_error = Some(format!("annotation {}: {error}", labels::RESOURCES)),
            None => {}
        }
        let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or_default();
        let role = metadata.labels.as_ref().and_then(|labels| labels.get(labels::ROLE));
        Some(Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone()?,
            uid: metadata.uid.clone().unwrap_or_default(),
            ips: status.and_then(|status| status.pod_ips.as_ref()).into_iter().flatten().map(|ip| ip.ip.clone()).collect(),
            node: spec.and_then(|spec| spec.node_name.clone()),
            labels: metadata.labels.clone().unwrap_or_default(),
            resources,
            resources_error,
            on_host_network: spec.and_then(|spec| spec.host_network).unwrap_or(false),
            is_ending: metadata.deletion_timestamp.is_some() || matches!(phase, "Succeeded" | "Failed"),
            is_ready: is_ready(pod),
            departure: departure::of_pod(pod),
            end: end::of_pod(pod),
            is_meant_as_worker: role.is_some() || containers.iter().any(runs_a_dask_worker),
            trouble: trouble_of(pod),
        })
    }

    /// What the pod is for, if its label says so.
    pub fn role(&self) -> Option<&str> {
        self.labels.get(labels::ROLE).map(String::as_str)
    }
}

/// Reads resources as `dask worker --resources` does: `GPU=2 MEMORY=10e9`, also with commas.
///
/// # Errors
/// With a sentence on the first part that is no `name=amount`.
pub fn parse_resources(text: &str) -> Result<BTreeMap<String, f64>, String> {
    let mut resources = BTreeMap::new();
    for part in text.split([' ', ',']).filter(|part| !part.is_empty()) {
        let parsed = part.split_once('=').and_then(|(name, amount)| Some((name, amount.parse::<f64>().ok()?)));
        match parsed {
            Some((name, amount)) if !name.is_empty() && amount.is_finite() && amount >= 0.0 => {
                resources.insert(name.to_owned(), amount);
            }
            _ => return Err(format!("`{part}` is not like GPU=2")),
        }
    }
    Ok(resources)
}

fn resources_of_limits(containers: &[Container]) -> BTreeMap<String, f64> {
    let mut resources = BTreeMap::new();
    for container in containers {
        let limits = container.resources.as_ref().and_then(|resources| resources.limits.as_ref());
        for (name, Quantity(amount)) in limits.into_iter().flatten() {
            // Devices come in whole numbers.
            let resource = LIMITS.iter().find(|(limit, _)| limit == name).map(|(_, resource)| *resource);
            if let (Some(resource), Ok(amount)) = (resource, amount.parse::<u32>()) {
                *resources.entry(resource.to_owned()).or_default() += f64::from(amount);
            }
        }
    }
    resources
}

fn runs_a_dask_worker(container: &Container) -> bool {
    let words = container.command.iter().flatten().chain(container.args.iter().flatten());
    let text = words.map(String::as_str).collect::<Vec<_>>().join(" ");
    ["dask worker", "dask-worker", "distributed.cli.dask_worker", "dask_cuda_worker", "dask-cuda-worker", "dask cuda worker"]
        .iter()
        .any(|command| text.contains(command))
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn trouble_of(pod: &Pod) -> Option<Trouble> {
    let status = pod.status.as_ref()?;
    let statuses = status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    statuses.filter_map(trouble_of_container).next().or_else(|| {
        let conditions = status.conditions.iter().flatten();
        conditions
            .filter(|condition| condition.type_ == "PodScheduled" && condition.status == "False")
            .map(|condition| Trouble {
                reason: condition.reason.clone().unwrap_or_else(|| "Unschedulable".to_owned()),
                message: condition.message.clone().unwrap_or_default(),
            })
            .next()
    })
}

fn trouble_of_container(status: &ContainerStatus) -> Option<Trouble> {
    let waiting = status.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref().filter(|reason| TROUBLES.contains(reason))?;
    let mut message = waiting.message.clone().unwrap_or_default();
    // "back-off restarting failed container" says less than how it ended.
    if let Some(ended) = status.last_state.as_ref().and_then(|last| last.terminated.as_ref()) {
        let how = ended.reason.as_deref().unwrap_or("Error");
        message = format!("its container ended with {how} (exit code {})", ended.exit_code);
    }
    Some(Trouble { reason: reason.to_owned(), message })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(json: serde_json::Value) -> PodFacts {
        PodFacts::of(&serde_json::from_value(json).unwrap()).unwrap()
    }

    #[test]
    fn resources_come_from_limits_and_the_annotation_goes_first() {
        let facts = pod(serde_json::json!({
            "metadata": {"name": "w", "annotations": {"mainstay.dev/resources": "GPU=4 MEMORY=10e9"}},
            "spec": {"containers": [{"name": "a", "resources": {"limits": {"nvidia.com/gpu": "1", "cpu": "2"}}}]},
        }));
        assert_eq!(facts.resources, BTreeMap::from([("GPU".to_owned(), 4.0), ("MEMORY".to_owned(), 10e9)]));
    }

    #[test]
    fn a_bad_annotation_is_told_and_costs_nothing_else() {
        let facts = pod(serde_json::json!({
            "metadata": {"name": "w", "annotations": {"mainstay.dev/resources": "GPU"}},
            "spec": {"containers": [{"name": "a", "resources": {"limits": {"nvidia.com/gpu": "1"}}}]},
        }));
        assert_eq!(facts.resources, BTreeMap::from([("GPU".to_owned(), 1.0)]));
        assert_eq!(facts.resources_error.as_deref(), Some("annotation mainstay.dev/resources: `GPU` is not like GPU=2"));
    }

    #[test]
    fn amounts_that_are_none_are_refused() {
        for text in ["GPU=-1", "GPU=nan", "GPU=inf", "=1", "GPU", "GPU=x"] {
            assert!(parse_resources(text).is_err(), "{text}");
        }
        assert_eq!(parse_resources("GPU=0.5,A=1").unwrap().len(), 2);
    }

    #[test]
    fn a_pod_that_cannot_pull_its_image_is_in_trouble() {
        let facts = pod(serde_json::json!({
            "metadata": {"name": "w", "labels": {"mainstay.dev/role": "worker"}},
            "status": {"containerStatuses": [{"name": "a", "image": "x", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image \"x\""}}}]},
        }));
        assert!(facts.is_meant_as_worker);
        assert_eq!(facts.trouble.unwrap().reason, "ImagePullBackOff");
    }

    #[test]
    fn a_pod_that_is_only_starting_is_not() {
        let facts = pod(serde_json::json!({
            "metadata": {"name": "w"},
            "spec": {"containers": [{"name": "a", "command": ["sh", "-c", "exec dask worker --name w"]}]},
            "status": {"containerStatuses": [{"name": "a", "image": "x", "imageID": "", "ready": false, "restartCount": 0,
                "state": {"waiting": {"reason": "ContainerCreating"}}}]},
        }));
        assert!(facts.is_meant_as_worker);
        assert_eq!(facts.trouble, None);
    }

    #[test]
    fn a_pod_without_a_node_says_why() {
        let facts = pod(serde_json::json!({
            "metadata": {"name": "w"},
            "status": {"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
                "message": "0/1 nodes are available: 1 Insufficient cpu."}]},
        }));
        let trouble = facts.trouble.unwrap();
        assert_eq!((trouble.reason.as_str(), trouble.message.contains("cpu")), ("Unschedulable", true));
    }
}
