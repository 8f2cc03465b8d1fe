//! Keeps an index up to date from the API server's watch.

use std::sync::PoisonError;

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::mpsc;

use super::index::{Index, SharedIndex};

/// Watches the pods of one namespace, or of all, and tells which namespaces changed. Ends only when nobody listens.
///
/// A watch that breaks off is begun again with backoff and jitter; the index keeps what it has meanwhile.
pub async fn run(client: Client, scope: Option<String>, index: SharedIndex, changed: mpsc::UnboundedSender<String>) {
    let api: Api<Pod> = match &scope {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let events = watcher(api, watcher::Config::default()).default_backoff();
    pin_mut!(events);
    let mut listed = Vec::new();
    while let Some(event) = events.next().await {
        let namespaces = match event {
            Ok(event) => take_in(&index, scope.as_deref(), event, &mut listed),
            Err(error) => {
                tracing::warn!(error = %error, "watching pods failed; trying again");
                continue;
            }
        };
        for namespace in namespaces {
            if changed.send(namespace).is_err() {
                return;
            }
        }
    }
}

/// Watches the nodes, and tells all namespaces when one of them is going. Ends only when nobody listens.
pub async fn run_nodes(client: Client, index: SharedIndex, changed: mpsc::UnboundedSender<String>) {
    let events = watcher(Api::<Node>::all(client), watcher::Config::default()).default_backoff();
    pin_mut!(events);
    let mut listed = Vec::new();
    while let Some(event) = events.next().await {
        let has_changed = match event {
            Ok(event) => take_in_node(&mut index.write().unwrap_or_else(PoisonError::into_inner), event, &mut listed),
            Err(error) => {
                tracing::warn!(error = %error, "watching nodes failed; trying again");
                continue;
            }
        };
        let namespaces = if has_changed { index.read().unwrap_or_else(PoisonError::into_inner).namespaces() } else { Vec::new() };
        for namespace in namespaces {
            if changed.send(namespace).is_err() {
                return;
            }
        }
    }
}

fn take_in_node(index: &mut Index, event: watcher::Event<Node>, listed: &mut Vec<Node>) -> bool {
    match event {
        watcher::Event::Init => listed.clear(),
        watcher::Event::InitApply(node) => listed.push(node),
        watcher::Event::InitDone => return index.reset_nodes(&std::mem::take(listed)),
        watcher::Event::Apply(node) => return index.apply_node(&node),
        watcher::Event::Delete(node) => index.delete_node(&node),
    }
    false
}

/// Applies one event. `listed` collects a fresh list until it is complete.
fn take_in(index: &SharedIndex, scope: Option<&str>, event: watcher::Event<Pod>, listed: &mut Vec<Pod>) -> Vec<String> {
    let mut index = index.write().unwrap_or_else(PoisonError::into_inner);
    let one = |changed: bool, pod: &Pod| -> Vec<String> { pod.metadata.namespace.iter().filter(|_| changed).cloned().collect() };
    match event {
        watcher::Event::Init => {
            listed.clear();
            Vec::new()
        }
        watcher::Event::InitApply(pod) => {
            listed.push(pod);
            Vec::new()
        }
        watcher::Event::InitDone => {
            let pods = std::mem::take(listed);
            Index::reset(&mut index, scope, &pods).into_iter().collect()
        }
        watcher::Event::Apply(pod) => one(index.apply(&pod), &pod),
        watcher::Event::Delete(pod) => one(index.delete(&pod), &pod),
    }
}
