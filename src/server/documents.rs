//! Copies of the builder's documents on workers, so that the next scheduler has the same graphs without making them again.
//!
//! A graph made anew may have other keys: of random numbers without a seed, of data that is another by now. Then what
//! is in memory would be of no use. So the document that the builder gave is laid down with two workers that have
//! the keeper, as it came, in their scratch space. A worker that comes back says which it has. When one is lost with its
//! worker, another gets a copy from the one that is left. When all are lost, the graph is made anew: what there is under
//! keys that it no longer has goes, and the rest stays.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tracing::{info, warn};

use crate::comm::Pool;
use crate::dask::WorkerAddress;
use crate::engine::{CollectionId, WorkerId};
use crate::error::chain;
use crate::server::build_document::{BuildDocument, Built};
use crate::server::event::Event;
use crate::server::handle::CollectionRequest;
use crate::server::inputs::Versions;
use crate::server::namespace::Namespace;
use crate::wire::encode::encode_message;
use crate::wire::messages::Ask;
use crate::wire::value::Value;

/// How many workers have each document.
const COPIES: usize = 2;
/// A worker may be lost with the copies of thousands of collections.
const COPIED_AT_ONCE: usize = 4;
/// Larger ones are not worth the space and the way: they are made again.
const DOCUMENT_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Which workers have which documents.
#[derive(Debug)]
pub(crate) struct Documents {
    holders: BTreeMap<String, BTreeSet<WorkerId>>,
    /// Those that are on their way to a worker.
    under_way: BTreeSet<String>,
    /// For those that are copied at the same time.
    places: Arc<Semaphore>,
}

impl Default for Documents {
    fn default() -> Self {
        let (holders, under_way) = Default::default();
        Self { holders, under_way, places: Arc::new(Semaphore::new(COPIED_AT_ONCE)) }
    }
}

/// A document is the same for the same object, revision and inputs.
pub(crate) fn name_of(request: &CollectionRequest, inputs: &Versions) -> String {
    let mut hasher = DefaultHasher::new();
    inputs.hash(&mut hasher);
    format!("{}-{}-{:016x}", request.uid, request.revision, hasher.finish())
}

impl Documents {
    fn holders(&self, name: &str) -> impl Iterator<Item = WorkerId> {
        self.holders.get(name).into_iter().flatten().copied()
    }

    fn forget_worker(&mut self, worker: WorkerId) -> Vec<String> {
        let lost = |(name, holders): (&String, &mut BTreeSet<WorkerId>)| holders.remove(&worker).then(|| name.clone());
        let lost = self.holders.iter_mut().filter_map(lost).collect();
        self.holders.retain(|_, holders| !holders.is_empty());
        lost
    }

    /// How many each worker has, of those that have some.
    fn counts(&self) -> BTreeMap<WorkerId, usize> {
        let mut counts = BTreeMap::new();
        self.holders.values().flatten().for_each(|holder| *counts.entry(*holder).or_default() += 1);
        counts
    }
}

impl Namespace {
    /// A worker that has come back has these.
    pub(crate) fn on_documents(&mut self, worker: WorkerId, names: Vec<String>) {
        for name in names {
            self.documents.holders.entry(name).or_default().insert(worker);
        }
    }

    /// A worker is gone, with its copies: others are made.
    pub(crate) fn on_documents_lost(&mut self, worker: WorkerId) {
        for name in self.documents.forget_worker(worker) {
            self.copy_document(name, None);
        }
    }

    /// Lays a document down with as many workers as are to have it. Without its bytes one that has it gives them.
    pub(crate) fn copy_document(&mut self, name: String, document: Option<Bytes>) {
        if document.as_ref().is_some_and(|document| document.len() > DOCUMENT_BYTES_MAX) {
            info!(name, "the graph is too large to be kept on workers; it would be made again");
            return;
        }
        let source =
            self.documents.holders(&name).find_map(|holder| self.workers.get(holder)).map(|worker| worker.address.clone());
        let targets = self.keepers_without(&name);
        if targets.is_empty() || (document.is_none() && source.is_none()) || !self.documents.under_way.insert(name.clone()) {
            return;
        }
        let (pool, events, places) = (Arc::clone(&self.pool), self.events.clone(), Arc::clone(&self.documents.places));
        self.pool.spawn(async move {
            let _place = places.acquire().await;
            let document = match (document, source) {
                (Some(document), _) => Some(document),
                (None, Some(source)) => fetch(&pool, &source, &name).await,
                (None, None) => None,
            };
            let mut kept_by = Vec::new();
            for (worker, address) in targets {
                if let Some(document) = &document
                    && keep(&pool, &address, &name, document.clone()).await
                {
                    kept_by.push(worker);
                }
            }
            // The loop has ended when nobody takes it.
            let _ = events.send(Event::DocumentKept { name, kept_by }).await;
        });
    }

    /// The workers that are to get a copy: those that have the fewest.
    fn keepers_without(&self, name: &str) -> Vec<(WorkerId, WorkerAddress)> {
        let holders: BTreeSet<WorkerId> = self.documents.holders(name).collect();
        let others = self.workers.iter().filter(|(id, worker)| worker.keeps && !worker.is_leaving && !holders.contains(id));
        let counts = self.documents.counts();
        let count_at = |id| counts.get(&id).copied().unwrap_or_default();
        let mut others: Vec<_> = others.map(|(id, worker)| (count_at(id), id, worker.address.clone())).collect();
        others.sort_unstable_by_key(|(count, id, _)| (*count, *id));
        others.into_iter().take(COPIES.saturating_sub(holders.len())).map(|(_, id, address)| (id, address)).collect()
    }

    pub(crate) fn on_document_kept(&mut self, name: String, kept_by: Vec<WorkerId>) {
        self.documents.under_way.remove(&name);
        let there: BTreeSet<WorkerId> = kept_by.into_iter().filter(|worker| self.workers.get(*worker).is_some()).collect();
        if !there.is_empty() {
            self.documents.holders.entry(name).or_default().extend(there);
        }
    }

    /// A worker that keeps has joined: it gets what there are too few copies of.
    pub(crate) fn spread_documents(&mut self) {
        let scarce: Vec<String> =
            self.documents.holders.iter().filter(|(_, holders)| holders.len() < COPIES).map(|(name, _)| name.clone()).collect();
        scarce.into_iter().for_each(|name| self.copy_document(name, None));
    }

    /// Has workers drop the documents that no collection has a use for, when all graphs are there that are to come.
    pub(crate) fn drop_useless_documents(&mut self) {
        let used = self.collections.document_names();
        let useless: Vec<String> = self.documents.holders.keys().filter(|name| !used.contains(*name)).cloned().collect();
        self.drop_documents(useless);
    }

    pub(crate) fn drop_documents(&mut self, useless: Vec<String>) {
        let mut by_worker: BTreeMap<WorkerAddress, Vec<Value>> = BTreeMap::new();
        for name in useless {
            for holder in self.documents.holders.remove(&name).unwrap_or_default() {
                if let Some(worker) = self.workers.get(holder) {
                    by_worker.entry(worker.address.clone()).or_default().push(name.as_str().into());
                }
            }
        }
        for (address, names) in by_worker {
            let pool = Arc::clone(&self.pool);
            self.pool.spawn(async move {
                let ask = Ask::new("mainstay-drop").with("names", Value::Array(names));
                // One that is gone has dropped them.
                let _ = pool.call(&address, encode_message(&ask)).await;
            });
        }
    }

    /// Has a graph read from a copy, if there is one. What comes of it is an event, as that of a build.
    pub(crate) fn fetch_document(&self, id: CollectionId, attempt: u64, name: String) -> Option<String> {
        let (holder, worker) = self.documents.holders(&name).find_map(|holder| Some((holder, self.workers.get(holder)?)))?;
        let (address, shown) = (worker.address.clone(), worker.name.clone());
        let (pool, events) = (Arc::clone(&self.pool), self.events.clone());
        self.pool.spawn(async move {
            let document = fetch(&pool, &address, &name).await.map(BuildDocument::decode);
            let event = match document {
                Some(Ok(Built::Document(document))) => Event::Built { collection: id, attempt, result: Ok(document), raw: None },
                Some(Ok(Built::Failed { .. })) | None => Event::DocumentMissing { collection: id, attempt, name, holder },
                Some(Err(error)) => {
                    warn!(name, error = %chain(&error), "the copy of a graph cannot be read; it is made again");
                    Event::DocumentMissing { collection: id, attempt, name, holder }
                }
            };
            // The loop has ended when nobody takes it.
            let _ = events.send(event).await;
        });
        Some(shown)
    }

    /// A worker does not have the copy that it should have, or it is of no use.
    pub(crate) fn on_document_missing(&mut self, id: CollectionId, attempt: u64, name: &str, holder: WorkerId) {
        if let Some(holders) = self.documents.holders.get_mut(name) {
            holders.remove(&holder);
            if holders.is_empty() {
                self.documents.holders.remove(name);
            }
        }
        self.collections.build_again(id, attempt);
        self.start_builds();
    }
}

/// Whether the worker has laid it down.
async fn keep(pool: &Pool, address: &WorkerAddress, name: &str, document: Bytes) -> bool {
    let ask = Ask::new("mainstay-keep").with("name", name).with("document", Value::Binary(document));
    let Ok(message) = pool.call(address, encode_message(&ask)).await else { return false };
    Value::decode(&message).is_ok_and(|answer| answer.get("status").and_then(Value::as_text) == Some("OK"))
}

async fn fetch(pool: &Pool, address: &WorkerAddress, name: &str) -> Option<Bytes> {
    let message = pool.call(address, encode_message(&Ask::new("mainstay-kept").with("name", name))).await.ok()?;
    match Value::decode(&message).ok()?.get("document") {
        Some(Value::Binary(document)) => Some(document.clone()),
        _ => None,
    }
}
