//! Hands a plan to the server of its namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::Notify;

use crate::server::{CollectionRequest, Fence, Handle, Report};

/// The namespaces that are ours, and the servers that run, by namespace. The controller asks for those that it misses; the
/// operator starts and ends them.
#[derive(Clone, Debug, Default)]
pub struct Servers {
    inner: Arc<RwLock<Inner>>,
    missed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Inner {
    handles: BTreeMap<String, Handle>,
    /// While its fence is open, what is in a namespace is looked after by this process and no other.
    held: BTreeMap<String, Fence>,
    wanted: BTreeSet<String>,
}

impl Servers {
    /// A server has come up.
    pub fn insert(&self, namespace: &str, handle: Handle) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.wanted.remove(namespace);
        inner.handles.insert(namespace.to_owned(), handle);
    }

    /// A server has ended. Collections that still need one ask for it again.
    pub fn remove(&self, namespace: &str) {
        self.inner.write().unwrap_or_else(PoisonError::into_inner).handles.remove(namespace);
    }

    /// A namespace is ours, while the fence is open.
    pub fn hold(&self, namespace: &str, fence: Fence) {
        self.inner.write().unwrap_or_else(PoisonError::into_inner).held.insert(namespace.to_owned(), fence);
    }

    /// A namespace is ours no more: its server ends.
    pub fn let_go(&self, namespace: &str) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.handles.remove(namespace);
        if let Some(fence) = inner.held.remove(namespace) {
            fence.close();
        }
    }

    /// None is ours any more.
    pub fn let_go_of_all(&self) {
        self.held().iter().for_each(|namespace| self.let_go(namespace));
    }

    /// The namespaces that are ours.
    pub fn held(&self) -> Vec<String> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).held.keys().cloned().collect()
    }

    /// The fence of a namespace that is ours.
    pub(super) fn fence(&self, namespace: &str) -> Option<Fence> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).held.get(namespace).cloned()
    }

    /// The namespace's server.
    pub fn find(&self, namespace: &str) -> Option<Handle> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).handles.get(namespace).cloned()
    }

    /// The namespaces that have one.
    pub(super) fn namespaces(&self) -> Vec<String> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner).handles.keys().cloned().collect()
    }

    /// The reports of all servers, each with its namespace.
    pub fn reports(&self) -> Vec<(String, Arc<Report>)> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let of = |(namespace, handle): (&String, &Handle)| {
            handle.reports().into_iter().map(|report| (namespace.clone(), report)).collect::<Vec<_>>()
        };
        inner.handles.iter().flat_map(of).collect()
    }

    /// Namespaces that need a server and have none. Waits until there is one.
    pub async fn wanted(&self) -> BTreeSet<String> {
        loop {
            let missed = self.missed.notified();
            let wanted = std::mem::take(&mut self.inner.write().unwrap_or_else(PoisonError::into_inner).wanted);
            if !wanted.is_empty() {
                return wanted;
            }
            missed.await;
        }
    }

    /// Asks for a server of this namespace.
    pub(super) fn want(&self, namespace: &str) {
        self.inner.write().unwrap_or_else(PoisonError::into_inner).wanted.insert(namespace.to_owned());
        self.missed.notify_one();
    }
}

/// Makes the server keep what the request says, unless it was told so before. Returns what it says of this generation.
///
/// A server that has started anew knows no report, so it is told again.
pub(super) fn apply(
    handle: &Handle,
    request: &Arc<CollectionRequest>,
    applied: &mut Option<Arc<CollectionRequest>>,
) -> Option<Arc<Report>> {
    let report = handle.report(&request.uid);
    if report.is_none() || !applied.as_ref().is_some_and(|applied| Arc::ptr_eq(applied, request)) {
        handle.apply(Arc::clone(request));
        *applied = Some(Arc::clone(request));
    }
    report.filter(|report| report.generation >= request.generation && report.revision == request.revision)
}
