//! The Leases of all namespaces as the API server has them: watched together, written one by one.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::PostParams;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tracing::{debug, info, warn};

use crate::api::labels::{EPOCH, FIELD_MANAGER, MANAGED_BY, SCHEDULER_LEASE};
use crate::comm::{Boottime, Fence};
use crate::error::chain;
use crate::operator::lease::{
    Action, Claim, Company, DURATION, Identity, Outcome, Record, Sighting, WRITE_TIMEOUT, Write, pod_of,
};
use crate::operator::namespaces::is_of_ending_namespace;
use crate::server;

/// Between attempts to give a Lease back.
const RELEASE_PAUSE: Duration = Duration::from_millis(200);

/// What became of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Taken,
    Lost,
    /// The namespace is ending, and nobody has had its Lease for so long that nobody serves it.
    Ending,
    Gone,
}

/// What was seen of all Leases.
pub(super) struct Leases {
    client: Client,
    me: Identity,
    board: Mutex<Board>,
}

#[derive(Default)]
struct Board {
    entries: BTreeMap<String, Entry>,
    /// The scopes of which a whole list has come.
    listed: BTreeSet<Option<String>>,
    /// How many these are.
    lists: watch::Sender<usize>,
}

/// One namespace's.
struct Entry {
    /// What its next version is made of.
    lease: Option<Lease>,
    /// `None` before the first list.
    seen: watch::Sender<Option<Sighting>>,
}

impl Leases {
    pub(super) fn new(client: Client, me: Identity) -> Self {
        Self { client, me, board: Mutex::default() }
    }

    pub(super) fn claim(&self) -> Claim {
        Claim::new(self.me.clone())
    }

    /// Watches the Leases of one namespace, or of all; never ends.
    pub(super) async fn watch(&self, scope: Option<String>) {
        let api: Api<Lease> = match &scope {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let only_ours = watcher::Config::default().fields(&format!("metadata.name={SCHEDULER_LEASE}"));
        let mut events = pin!(watcher(api, only_ours).default_backoff());
        let mut listed = Vec::new();
        while let Some(event) = events.next().await {
            let (mut board, now) = (self.board(), Boottime::now());
            match event {
                Ok(Event::Init) => listed.clear(),
                Ok(Event::InitApply(lease)) => listed.push(lease),
                Ok(Event::InitDone) => board.list(scope.as_deref(), std::mem::take(&mut listed), now),
                Ok(Event::Apply(lease)) => {
                    board.see(&lease.namespace().unwrap_or_default(), version_of(&lease), Some(lease), now)
                }
                Ok(Event::Delete(lease)) => board.see(&lease.namespace().unwrap_or_default(), version_of(&lease), None, now),
                Err(error) => {
                    board.lose_sight(scope.as_deref(), now);
                    warn!(%error, "watching Leases failed; trying again");
                }
            }
        }
    }

    /// Acts on a namespace's Lease until it is taken, or is ours no more. Keeps the fence open for as long as it is ours.
    pub(super) async fn pursue(&self, namespace: &str, claim: &mut Claim, fence: &Fence) -> Turn {
        let before = claim.epoch();
        let mut sightings = self.board().entry(namespace).seen.subscribe();
        let mut last = Outcome::Written;
        let mut ending_since = None;
        loop {
            let sighting = sightings.borrow_and_update().clone();
            let now = Boottime::now();
            let action = match &sighting {
                Some(seen) => claim.next(seen, || self.company(), server::epoch_of_now(), now),
                None => Action::Wait { until: Boottime::MAX },
            };
            match action {
                Action::Lose => claim.lose(),
                Action::Wait { until } => {
                    tokio::select! {
                        () = sleep(now.until(until)) => {}
                        // The sender lives as long as we do.
                        _ = sightings.changed() => {}
                    }
                }
                Action::Write(write) => {
                    let outcome = self.write(namespace, &write).await;
                    if outcome != last {
                        debug!(namespace, ?outcome, "wrote a Lease");
                    }
                    last = outcome;
                    claim.wrote(&write, now, outcome, Boottime::now());
                    match outcome {
                        Outcome::Gone => return Turn::Gone,
                        Outcome::Ending if before.is_none() => {
                            if *ending_since.get_or_insert(now) + DURATION <= now {
                                return Turn::Ending;
                            }
                        }
                        _ => ending_since = None,
                    }
                }
            }
            fence.extend(claim.proven_until());
            match (before, claim.epoch()) {
                (None, Some(epoch)) => {
                    let former = sighting.and_then(|seen| seen.record?.holder);
                    let former = former.as_deref().map(pod_of);
                    info!(namespace, epoch, former, "took the Lease of a namespace");
                    return Turn::Taken;
                }
                (Some(_), None) => {
                    warn!(namespace, "lost the Lease of a namespace: another operator serves it");
                    return Turn::Lost;
                }
                _ => {}
            }
        }
    }

    /// Gives back what is ours, so that others need not wait. What is served by it has ended.
    pub(super) async fn release(&self) {
        let namespaces: Vec<String> = self.board().entries.keys().cloned().collect();
        join_all(namespaces.iter().map(async |namespace| {
            while let Some(mut lease) = self.ours(namespace) {
                let spec = lease.spec.get_or_insert_default();
                (spec.holder_identity, spec.renew_time) = (None, None);
                match self.replace(namespace, lease).await {
                    Ok(()) => break,
                    // A renewal was on its way: it is seen soon.
                    Err(LeaseError::Write(kube::Error::Api(status))) if status.code == 409 => sleep(RELEASE_PAUSE).await,
                    // Whoever comes next waits until its time is over.
                    Err(error) => {
                        warn!(namespace, error = %chain(&error), "failed to give a Lease back");
                        break;
                    }
                }
            }
        }))
        .await;
    }

    /// The Lease of a namespace, if this process has it.
    fn ours(&self, namespace: &str) -> Option<Lease> {
        let board = self.board();
        let entry = board.entries.get(namespace)?;
        entry.lease.clone().filter(|_| entry.holder().as_deref() == Some(&*self.me.holder()))
    }

    async fn write(&self, namespace: &str, write: &Write) -> Outcome {
        let mut lease = self.board().entry(namespace).lease.clone().unwrap_or_default();
        let now = MicroTime(Timestamp::now());
        let metadata = &mut lease.metadata;
        metadata.name = Some(SCHEDULER_LEASE.to_owned());
        metadata.resource_version = write.over.map(|version| version.to_string());
        metadata.managed_fields = None;
        metadata.labels.get_or_insert_default().insert(MANAGED_BY.to_owned(), "mainstay".to_owned());
        metadata.annotations.get_or_insert_default().insert(EPOCH.to_owned(), write.epoch.to_string());
        let spec = lease.spec.get_or_insert_default();
        if write.takes {
            spec.acquire_time = Some(now.clone());
            spec.lease_transitions = Some(spec.lease_transitions.map_or(0, |transitions| transitions.saturating_add(1)));
        }
        spec.holder_identity = Some(self.me.holder());
        spec.lease_duration_seconds = Some(DURATION.as_secs() as i32);
        spec.renew_time = Some(now);
        let error = match self.replace(namespace, lease).await {
            Ok(()) => return Outcome::Written,
            Err(error) => error,
        };
        match &error {
            LeaseError::Write(kube::Error::Api(status)) if is_of_ending_namespace(status) => Outcome::Ending,
            // Without a version it is only made, never written over: the answer is that a field is missing.
            LeaseError::Write(kube::Error::Api(status)) if matches!(status.code, 409 | 422) => Outcome::Conflict,
            // Then there is no such namespace, or no such Lease any more.
            LeaseError::Write(kube::Error::Api(status)) if status.code == 404 && write.over.is_none() => Outcome::Gone,
            LeaseError::Write(kube::Error::Api(status)) if status.code == 404 => Outcome::Conflict,
            LeaseError::Write(_) | LeaseError::Timeout => {
                warn!(namespace, error = %chain(&error), "failed to write a Lease; trying again");
                Outcome::Unanswered
            }
        }
    }

    /// Writes a Lease over its version, or makes it. Leases may be made by `update`: so all that is needed is a right on this name.
    async fn replace(&self, namespace: &str, lease: Lease) -> Result<(), LeaseError> {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), namespace);
        let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        let writing = api.replace(SCHEDULER_LEASE, &parameters, &lease);
        let written = timeout(WRITE_TIMEOUT, writing).await.map_err(|_| LeaseError::Timeout)?.map_err(LeaseError::Write)?;
        self.board().see(namespace, version_of(&written), Some(written), Boottime::now());
        Ok(())
    }

    /// Waits until the Leases of so many scopes were listed.
    pub(super) async fn listed(&self, scopes: usize) {
        let mut lists = self.board().lists.subscribe();
        // The sender lives as long as we do.
        let _ = lists.wait_for(|listed| *listed >= scopes).await;
    }

    fn company(&self) -> Company {
        let (board, me) = (self.board(), self.me.holder());
        let holders = || board.entries.values().filter_map(Entry::holder);
        Company { mine: holders().filter(|holder| *holder == me).count(), is_shared: holders().any(|holder| holder != me) }
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a Lease was not written.
#[derive(Debug, Error)]
enum LeaseError {
    #[error("failed to write the Lease")]
    Write(#[source] kube::Error),
    #[error("no answer within {} s", WRITE_TIMEOUT.as_secs())]
    Timeout,
}

impl Board {
    fn entry(&mut self, namespace: &str) -> &mut Entry {
        let is_listed = self.listed.contains(&None) || self.listed.contains(&Some(namespace.to_owned()));
        self.entries.entry(namespace.to_owned()).or_insert_with(|| {
            let seen = is_listed.then(|| Sighting { record: None, since: Boottime::now() });
            Entry { lease: None, seen: watch::Sender::new(seen) }
        })
    }

    /// Takes in a change, unless it is older than what is known: our own writes are known before they are seen.
    fn see(&mut self, namespace: &str, version: u64, lease: Option<Lease>, now: Boottime) {
        let entry = self.entry(namespace);
        if entry.lease.as_ref().is_none_or(|known| version_of(known) < version) {
            entry.set(lease, now);
        }
    }

    /// Takes in a whole list, which may be older than what was known: a database that was restored goes back.
    fn list(&mut self, scope: Option<&str>, leases: Vec<Lease>, now: Boottime) {
        let mut fresh: BTreeMap<String, Lease> =
            leases.into_iter().map(|lease| (lease.namespace().unwrap_or_default(), lease)).collect();
        self.listed.insert(scope.map(str::to_owned));
        let known = self.entries.keys().filter(|namespace| scope.is_none_or(|scope| scope == *namespace)).cloned();
        let namespaces: BTreeSet<String> = known.chain(fresh.keys().cloned()).collect();
        for namespace in namespaces {
            let lease = fresh.remove(&namespace);
            self.entry(&namespace).set(lease, now);
        }
        self.lose_sight(scope, now);
        self.lists.send_replace(self.listed.len());
    }

    /// What has not been seen to change may have changed.
    fn lose_sight(&self, scope: Option<&str>, now: Boottime) {
        for (_, entry) in self.entries.iter().filter(|(namespace, _)| scope.is_none_or(|scope| scope == *namespace)) {
            entry.seen.send_modify(|seen| {
                if let Some(seen) = seen {
                    seen.lose_sight(now);
                }
            });
        }
    }
}

impl Entry {
    fn set(&mut self, lease: Option<Lease>, now: Boottime) {
        let record = lease.as_ref().map(record_of);
        self.lease = lease;
        self.seen.send_modify(|seen| seen.get_or_insert_default().see(record, now));
    }

    fn holder(&self) -> Option<String> {
        self.lease.as_ref().and_then(|lease| record_of(lease).holder)
    }
}

fn record_of(lease: &Lease) -> Record {
    let epoch = lease.annotations().get(EPOCH).and_then(|epoch| epoch.parse().ok()).unwrap_or_default();
    let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone());
    Record { version: version_of(lease), holder: holder.filter(|holder| !holder.is_empty()), epoch }
}

/// Resource versions of one kind are numbers that grow, since Kubernetes 1.35 by contract and before it in fact.
fn version_of(lease: &Lease) -> u64 {
    lease.resource_version().and_then(|version| version.parse().ok()).unwrap_or_default()
}
