//! All pods that were seen, by namespace and name.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, RwLock};

use k8s_openapi::api::core::v1::{Node, Pod};

use super::departure::{self, Departure};
use super::end::{self, End};
use super::facts::PodFacts;

/// So many pods that are gone are remembered with how they ended.
const ENDS_MAX: usize = 256;

/// An index that the watch writes and everybody else reads.
pub type SharedIndex = Arc<RwLock<Index>>;

/// Holds what matters of every pod that the watch has shown and not taken back.
#[derive(Debug, Default)]
pub struct Index {
    pods: BTreeMap<String, BTreeMap<String, PodFacts>>,
    /// The scopes of which a whole list has come.
    listed: BTreeSet<Option<String>>,
    /// All and only nodes that are going, or take no new pods; none where nodes are not watched.
    nodes: BTreeMap<String, Departure>,
    /// How the last pods ended that are gone: namespace, name, end.
    ends: VecDeque<(String, String, End)>,
}

/// Why a registration has no pod.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    #[error("no pod of namespace `{namespace}` has the address {ip}; workers must run in pods of this namespace")]
    NoPod { namespace: String, ip: String },
    #[error("pods {pods} share the address {ip}; start the worker with --name $(POD_NAME)")]
    Ambiguous { ip: String, pods: String },
}

impl Index {
    /// Takes in what a pod is like at present. Returns whether anything that matters is different.
    pub fn apply(&mut self, pod: &Pod) -> bool {
        let Some(facts) = PodFacts::of(pod) else { return false };
        let known = self.pods.entry(facts.namespace.clone()).or_default();
        if known.get(&facts.name) == Some(&facts) {
            return false;
        }
        known.insert(facts.name.clone(), facts);
        true
    }

    /// Forgets a pod. One of the same name that came after it stays.
    pub fn delete(&mut self, pod: &Pod) -> bool {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let Some(known) = self.pods.get_mut(namespace) else { return false };
        if known.get(name).is_none_or(|facts| facts.uid != uid) {
            return false;
        }
        known.remove(name);
        if let Some(end) = end::of_pod(pod) {
            self.ends.push_back((namespace.to_owned(), name.to_owned(), end));
            self.ends.drain(..self.ends.len().saturating_sub(ENDS_MAX));
        }
        if known.is_empty() {
            self.pods.remove(namespace);
        }
        true
    }

    /// Replaces everything within a scope (one namespace, or all) by a fresh list. Returns the namespaces that changed.
    pub fn reset(&mut self, scope: Option<&str>, pods: &[Pod]) -> BTreeSet<String> {
        let mut fresh: BTreeMap<String, BTreeMap<String, PodFacts>> = BTreeMap::new();
        for facts in pods.iter().filter_map(PodFacts::of) {
            fresh.entry(facts.namespace.clone()).or_default().insert(facts.name.clone(), facts);
        }
        self.listed.insert(scope.map(str::to_owned));
        let in_scope = |namespace: &String| scope.is_none_or(|scope| scope == namespace);
        let touched: BTreeSet<String> =
            self.pods.keys().filter(|namespace| in_scope(namespace)).chain(fresh.keys()).cloned().collect();
        let changed = touched.into_iter().filter(|namespace| self.pods.get(namespace) != fresh.get(namespace)).collect();
        self.pods.retain(|namespace, _| !in_scope(namespace));
        self.pods.extend(fresh);
        changed
    }

    /// The pod of a worker that registered from `ip` under `name`.
    ///
    /// The name decides among pods of that address: the pod's own, or with a number after it, as `--nworkers` gives. A
    /// worker with another name is taken for the pod that alone has the address.
    ///
    /// # Errors
    /// With a sentence for the worker's log.
    pub fn find(&self, namespace: &str, name: &str, ip: &str) -> Result<&PodFacts, Mismatch> {
        let known = self.pods.get(namespace).into_iter().flat_map(BTreeMap::values);
        let here: Vec<&PodFacts> = known.filter(|pod| !pod.is_ending && pod.ips.iter().any(|known| known == ip)).collect();
        if let Some(pod) = here.iter().find(|pod| is_named_after(name, &pod.name)) {
            return Ok(pod);
        }
        match here.as_slice() {
            [pod] if !pod.on_host_network => Ok(pod),
            [] => Err(Mismatch::NoPod { namespace: namespace.to_owned(), ip: ip.to_owned() }),
            several => {
                let pods = several.iter().map(|pod| pod.name.as_str()).collect::<Vec<_>>().join(", ");
                Err(Mismatch::Ambiguous { ip: ip.to_owned(), pods })
            }
        }
    }

    /// One pod by name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<&PodFacts> {
        self.pods.get(namespace)?.get(name)
    }

    /// Takes in what a node is like at present. Returns whether its pods are going now, or are not any more.
    pub fn apply_node(&mut self, node: &Node) -> bool {
        let Some(name) = node.metadata.name.clone() else { return false };
        let now = departure::of_node(node);
        let before = match now.clone() {
            Some(departure) => self.nodes.insert(name, departure),
            None => self.nodes.remove(&name),
        };
        before != now
    }

    /// A node is gone; its pods go by themselves.
    pub fn delete_node(&mut self, node: &Node) {
        node.metadata.name.iter().for_each(|name| _ = self.nodes.remove(name));
    }

    /// Replaces all nodes by a fresh list.
    pub fn reset_nodes(&mut self, nodes: &[Node]) -> bool {
        let going = |node: &Node| Some((node.metadata.name.clone()?, departure::of_node(node)?));
        let before = std::mem::replace(&mut self.nodes, nodes.iter().filter_map(going).collect());
        before != self.nodes
    }

    /// What announces the end of a pod, itself or its node.
    pub fn departure(&self, namespace: &str, name: &str) -> Option<&Departure> {
        let pod = self.get(namespace, name)?;
        pod.departure.as_ref().or_else(|| self.nodes.get(pod.node.as_ref()?))
    }

    /// How a pod ended, or its container did last; also of pods that are gone, for a while.
    pub fn end(&self, namespace: &str, name: &str) -> Option<&End> {
        match self.get(namespace, name) {
            Some(pod) => pod.end.as_ref(),
            None => {
                let ends = self.ends.iter().rev();
                ends.filter(|(of, named, _)| of == namespace && named == name).map(|(_, _, end)| end).next()
            }
        }
    }

    /// All namespaces with pods.
    pub fn namespaces(&self) -> Vec<String> {
        self.pods.keys().cloned().collect()
    }

    /// The pods of a namespace, by name.
    pub fn pods_of(&self, namespace: &str) -> impl Iterator<Item = &PodFacts> {
        self.pods.get(namespace).into_iter().flat_map(BTreeMap::values)
    }

    /// Whether all pods of a namespace are known.
    pub fn is_listed(&self, namespace: &str) -> bool {
        self.listed.contains(&None) || self.listed.contains(&Some(namespace.to_owned()))
    }

    /// The pods of a namespace in which workers run.
    pub fn running_workers(&self, namespace: &str) -> impl Iterator<Item = &PodFacts> {
        self.pods_of(namespace).filter(|pod| pod.is_meant_as_worker && pod.is_ready && !pod.is_ending)
    }

    /// Namespaces that have a pod with a role: they want to be served.
    pub fn namespaces_with_roles(&self) -> BTreeSet<String> {
        let has_role = |pods: &BTreeMap<String, PodFacts>| pods.values().any(|pod| pod.role().is_some());
        self.pods.iter().filter(|(_, pods)| has_role(pods)).map(|(namespace, _)| namespace.clone()).collect()
    }
}

fn is_named_after(worker: &str, pod: &str) -> bool {
    match worker.strip_prefix(pod) {
        Some("") => true,
        Some(rest) => {
            rest.strip_prefix('-').is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
        }
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(namespace: &str, name: &str, uid: &str, ip: &str) -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"namespace": namespace, "name": name, "uid": uid},
            "status": {"podIPs": [{"ip": ip}]},
        }))
        .unwrap()
    }

    #[test]
    fn a_worker_is_found_by_name_and_address() {
        let mut index = Index::default();
        assert!(index.apply(&pod("a", "w-0", "1", "10.0.0.1")));
        assert!(!index.apply(&pod("a", "w-0", "1", "10.0.0.1")));
        assert_eq!(index.find("a", "w-0", "10.0.0.1").unwrap().uid, "1");
        assert_eq!(index.find("a", "w-0-3", "10.0.0.1").unwrap().uid, "1");
        assert_eq!(index.find("a", "tcp://10.0.0.1:4001", "10.0.0.1").unwrap().uid, "1");
    }

    #[test]
    fn a_name_does_not_stand_in_for_an_address() {
        let mut index = Index::default();
        index.apply(&pod("a", "w-0", "1", "10.0.0.1"));
        index.apply(&pod("a", "w-1", "2", "10.0.0.2"));
        assert_eq!(index.find("a", "w-0", "10.0.0.2").unwrap().name, "w-1");
        assert!(matches!(index.find("a", "w-0", "10.0.0.9"), Err(Mismatch::NoPod { .. })));
        assert!(matches!(index.find("b", "w-0", "10.0.0.1"), Err(Mismatch::NoPod { .. })));
    }

    #[test]
    fn pods_that_share_an_address_need_the_name() {
        let mut index = Index::default();
        index.apply(&pod("a", "w-0", "1", "10.0.0.1"));
        index.apply(&pod("a", "w-1", "2", "10.0.0.1"));
        assert_eq!(index.find("a", "w-1", "10.0.0.1").unwrap().uid, "2");
        let mismatch = index.find("a", "x", "10.0.0.1").unwrap_err();
        assert_eq!(mismatch.to_string(), "pods w-0, w-1 share the address 10.0.0.1; start the worker with --name $(POD_NAME)");
    }

    #[test]
    fn a_late_delete_does_not_take_the_next_pod_of_that_name() {
        let mut index = Index::default();
        index.apply(&pod("a", "w-0", "2", "10.0.0.1"));
        assert!(!index.delete(&pod("a", "w-0", "1", "10.0.0.1")));
        assert!(index.get("a", "w-0").is_some());
        assert!(index.delete(&pod("a", "w-0", "2", "10.0.0.1")));
        assert!(index.get("a", "w-0").is_none());
    }

    #[test]
    fn pods_go_with_their_node_and_how_they_ended_is_remembered() {
        let mut index = Index::default();
        let mut one = pod("a", "w-0", "1", "10.0.0.1");
        one.spec.get_or_insert_default().node_name = Some("n".to_owned());
        index.apply(&one);
        let node = |spec| serde_json::from_value(serde_json::json!({"metadata": {"name": "n"}, "spec": spec})).unwrap();
        assert!(index.apply_node(&node(serde_json::json!({"unschedulable": true}))));
        assert_eq!(index.departure("a", "w-0"), Some(&Departure::NodeCordoned));
        assert!(index.apply_node(&node(serde_json::json!({}))));
        assert!(!index.reset_nodes(&[]));
        assert_eq!(index.departure("a", "w-0"), None);
        let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(k8s_openapi::jiff::Timestamp::UNIX_EPOCH);
        one.metadata.deletion_timestamp = Some(time);
        assert!(index.delete(&one));
        assert_eq!(index.end("a", "w-0").unwrap().reason, "Deleted");
        assert_eq!(index.end("b", "w-0"), None);
    }

    #[test]
    fn a_reset_touches_only_its_scope() {
        let mut index = Index::default();
        index.apply(&pod("a", "w-0", "1", "10.0.0.1"));
        index.apply(&pod("b", "w-0", "2", "10.0.0.2"));
        assert_eq!(index.reset(Some("a"), &[]), BTreeSet::from(["a".to_owned()]));
        assert!(index.get("a", "w-0").is_none() && index.get("b", "w-0").is_some());
        assert_eq!(index.reset(None, &[pod("b", "w-0", "2", "10.0.0.2")]), BTreeSet::new());
    }
}
