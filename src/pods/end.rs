//! How a pod, or its container, came to its end.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod, PodStatus};

use super::departure::disruption;

const OOM_KILLED: &str = "OOMKilled";

/// Why a worker is gone, as far as its pod says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// `OOMKilled`, `Evicted`, `Preempted`, `NodeLost`, `Deleted`, `Error`, … as Kubernetes names it where it does.
    pub reason: String,
    /// In words for a person; may be empty.
    pub message: String,
}

impl End {
    fn new(reason: &str, message: impl Into<String>) -> Self {
        Self { reason: reason.to_owned(), message: message.into() }
    }
}

/// How a pod ended, or its container did last. Of several things that are true the one that led to the others.
pub(super) fn of_pod(pod: &Pod) -> Option<End> {
    let status = pod.status.as_ref();
    let of_whole = status.and_then(of_status).or_else(|| status.and_then(of_disruption));
    // A container of a pod that is being deleted is told to end, and that is no news.
    let is_deleted = pod.metadata.deletion_timestamp.is_some();
    let of_container = status.and_then(of_containers).filter(|end| !is_deleted || end.reason == OOM_KILLED);
    of_whole.or(of_container).or_else(|| is_deleted.then(|| End::new("Deleted", "its pod was deleted")))
}

/// A pod that failed as a whole says why.
fn of_status(status: &PodStatus) -> Option<End> {
    let reason = status.reason.as_deref().filter(|_| status.phase.as_deref() == Some("Failed"))?;
    let reason = if reason == "Preempting" { "Preempted" } else { reason };
    Some(End::new(reason, status.message.clone().unwrap_or_default()))
}

fn of_disruption(status: &PodStatus) -> Option<End> {
    let condition = disruption(status)?;
    let reason = match condition.reason.as_deref().unwrap_or_default() {
        "PreemptionByScheduler" => "Preempted",
        "EvictionByEvictionAPI" | "TerminationByKubelet" => "Evicted",
        "DeletionByTaintManager" | "DeletionByPodGC" => "NodeLost",
        "" => "Disrupted",
        other => other,
    };
    Some(End::new(reason, condition.message.clone().unwrap_or_default()))
}

fn of_containers(status: &PodStatus) -> Option<End> {
    let last = |container: &ContainerStatus| {
        let states = [&container.state, &container.last_state];
        states.into_iter().find_map(|state| state.as_ref()?.terminated.clone())
    };
    // Of several containers the one that was killed for its memory, else the first that failed.
    let ended: Vec<ContainerStateTerminated> = status.container_statuses.iter().flatten().filter_map(last).collect();
    let is_oom = |end: &&ContainerStateTerminated| end.reason.as_deref() == Some(OOM_KILLED);
    let end = ended.iter().find(is_oom).or_else(|| ended.iter().find(|end| end.exit_code != 0)).or_else(|| ended.first())?;
    Some(of_container(end))
}

fn of_container(end: &ContainerStateTerminated) -> End {
    // The time tells this end from the one before.
    let at = end.finished_at.as_ref().map(|at| format!(" at {}", at.0)).unwrap_or_default();
    match end.reason.as_deref().unwrap_or("Error") {
        OOM_KILLED => End::new(OOM_KILLED, format!("its container took more memory than its limit{at}")),
        "Completed" => End::new("Completed", format!("its container ended by itself{at}")),
        reason => End::new(reason, format!("its container ended with exit code {}{at}", end.exit_code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(status: serde_json::Value) -> Option<String> {
        let pod = serde_json::json!({"metadata": {"name": "w"}, "status": status});
        of_pod(&serde_json::from_value(pod).unwrap()).map(|End { reason, message }| format!("{reason}: {message}"))
    }

    #[test]
    fn a_pod_says_how_it_ended() {
        let terminated = |reason, code| {
            let state =
                serde_json::json!({"terminated": {"reason": reason, "exitCode": code, "finishedAt": "2026-01-01T00:00:00Z"}});
            serde_json::json!({"containerStatuses": [{"name": "a", "image": "x", "imageID": "", "ready": false, "restartCount": 1,
                "state": {"running": {}}, "lastState": state}]})
        };
        assert_eq!(end(serde_json::json!({})), None);
        let at = "at 2026-01-01T00:00:00Z";
        let oom = end(terminated("OOMKilled", 137)).unwrap();
        assert_eq!(oom, format!("OOMKilled: its container took more memory than its limit {at}"));
        assert_eq!(end(terminated("Error", 1)).unwrap(), format!("Error: its container ended with exit code 1 {at}"));
        let evicted = serde_json::json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on memory."});
        assert_eq!(end(evicted).as_deref(), Some("Evicted: The node was low on memory."));
        let target =
            |reason| serde_json::json!({"conditions": [{"type": "DisruptionTarget", "status": "True", "reason": reason}]});
        assert_eq!(end(target("PreemptionByScheduler")).as_deref(), Some("Preempted: "));
        assert_eq!(end(target("EvictionByEvictionAPI")).as_deref(), Some("Evicted: "));
    }

    #[test]
    fn a_pod_that_is_deleted_says_so() {
        let pod = serde_json::json!({"metadata": {"name": "w", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
        assert_eq!(of_pod(&serde_json::from_value(pod).unwrap()).unwrap().reason, "Deleted");
    }
}
