//! What announces the end of a pod, or of its node, before it comes.

use std::fmt;

use k8s_openapi::api::core::v1::{Node, Pod, PodCondition, PodStatus, Taint};

/// Taints of nodes that are about to go. Those that only say what a node is, such as a spot instance, are not among them.
const ENDING_TAINTS: [&str; 10] = [
    "ToBeDeletedByClusterAutoscaler",
    "karpenter.sh/disrupted",
    "karpenter.sh/disruption",
    "aws-node-termination-handler/spot-itn",
    "aws-node-termination-handler/scheduled-maintenance",
    "aws-node-termination-handler/asg-lifecycle-termination",
    "aws-node-termination-handler/rebalance-recommendation",
    "cloud.google.com/impending-node-termination",
    "node.cloudprovider.kubernetes.io/shutdown",
    "node.kubernetes.io/out-of-service",
];

/// Why a worker is going, or may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Departure {
    /// The pod is being ended: it has its grace period left.
    Terminating,
    /// The pod will be ended, by its condition `DisruptionTarget`: with the reason there.
    Disrupted(String),
    /// The node is going: with the taint that says so.
    NodeEnding(String),
    /// The node takes no new pods. Those that it has may stay for ever, so this is a reason only where others stay.
    NodeCordoned,
}

impl fmt::Display for Departure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Terminating => f.write_str("its pod is being ended"),
            Self::Disrupted(reason) => write!(f, "its pod will be ended ({reason})"),
            Self::NodeEnding(taint) => write!(f, "its node is going ({taint})"),
            Self::NodeCordoned => f.write_str("its node takes no new pods"),
        }
    }
}

/// What a pod itself says.
pub(super) fn of_pod(pod: &Pod) -> Option<Departure> {
    if pod.metadata.deletion_timestamp.is_some() {
        return Some(Departure::Terminating);
    }
    let condition = pod.status.as_ref().and_then(disruption)?;
    Some(Departure::Disrupted(condition.reason.clone().unwrap_or_else(|| condition.type_.clone())))
}

/// The condition that says that a pod will be ended, or was, for something else's sake.
pub(super) fn disruption(status: &PodStatus) -> Option<&PodCondition> {
    let is_target = |condition: &&PodCondition| condition.type_ == "DisruptionTarget" && condition.status == "True";
    status.conditions.iter().flatten().find(is_target)
}

/// What a node says of all its pods.
pub(super) fn of_node(node: &Node) -> Option<Departure> {
    let spec = node.spec.as_ref();
    let taints = spec.iter().flat_map(|spec| spec.taints.iter().flatten());
    if let Some(taint) = taints.into_iter().find(|taint| is_ending(taint)) {
        return Some(Departure::NodeEnding(taint.key.clone()));
    }
    if node.metadata.deletion_timestamp.is_some() {
        return Some(Departure::NodeEnding("deleted".to_owned()));
    }
    spec.and_then(|spec| spec.unschedulable).unwrap_or(false).then_some(Departure::NodeCordoned)
}

fn is_ending(taint: &Taint) -> bool {
    ENDING_TAINTS.contains(&taint.key.as_str()) && taint.effect != "PreferNoSchedule"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_pod_is_announced_by_a_time_or_a_condition() {
        let pod = |json| of_pod(&serde_json::from_value(json).unwrap());
        assert_eq!(pod(serde_json::json!({"metadata": {"name": "w"}})), None);
        let ending = serde_json::json!({"metadata": {"name": "w", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
        assert_eq!(pod(ending), Some(Departure::Terminating));
        let condition = |status| {
            let conditions =
                serde_json::json!([{"type": "DisruptionTarget", "status": status, "reason": "PreemptionByScheduler"}]);
            serde_json::json!({"metadata": {"name": "w"}, "status": {"conditions": conditions}})
        };
        assert_eq!(pod(condition("True")), Some(Departure::Disrupted("PreemptionByScheduler".to_owned())));
        assert_eq!(pod(condition("False")), None);
    }

    #[test]
    fn a_node_is_going_by_its_taints_and_a_spot_instance_is_not() {
        let node = |spec| of_node(&serde_json::from_value(serde_json::json!({"metadata": {"name": "n"}, "spec": spec})).unwrap());
        let tainted = |key, effect| serde_json::json!({"taints": [{"key": key, "effect": effect}]});
        assert_eq!(node(serde_json::json!({})), None);
        assert_eq!(node(tainted("cloud.google.com/gke-spot", "NoSchedule")), None);
        assert_eq!(node(tainted("node.kubernetes.io/memory-pressure", "NoSchedule")), None);
        assert_eq!(node(serde_json::json!({"unschedulable": true})), Some(Departure::NodeCordoned));
        let spot = "aws-node-termination-handler/spot-itn";
        assert_eq!(node(tainted(spot, "NoSchedule")), Some(Departure::NodeEnding(spot.to_owned())));
        assert_eq!(node(tainted(spot, "PreferNoSchedule")), None);
    }
}
