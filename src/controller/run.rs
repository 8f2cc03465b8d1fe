//! Calls `reconcile` whenever something changed: the object, what the server says of it, or the pods of its namespace.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, interval_at, sleep_until};
use tracing::Instrument as _;

use crate::api::PersistedCollection;
use crate::controller::objects::{ObjectName, Objects};
use crate::controller::queue::Queue;
use crate::controller::reconcile::reconcile;
use crate::controller::{Context, Error, backoff};

/// Objects that are reconciled at the same time.
const CONCURRENCY: usize = 16;
/// Objects of a list that are there at once.
const LIST_PAGE: u32 = 100;
/// How often all objects are looked at, though nothing calls for it.
const RESYNC: Duration = Duration::from_secs(3600);

/// What others tell the controller.
pub struct Changes {
    /// Uids of collections whose report is another now.
    pub reports: mpsc::UnboundedReceiver<String>,
    pub namespaces: mpsc::UnboundedReceiver<NamespaceChange>,
}

/// What became of a namespace.
#[derive(Clone, Debug)]
pub enum NamespaceChange {
    /// It has other pods, or it may be looked after now.
    Pods(String),
    /// Its server has come up, and knows nothing.
    Served(String),
    /// Another operator may look after it.
    Unserved(String),
}

/// Why to look at objects.
#[derive(Clone, Debug)]
pub(super) enum Trigger {
    Object { namespace: Box<str>, name: Box<str> },
    Namespace(NamespaceChange),
}

/// What is watched: each of these namespaces by itself; all together where none is named.
pub fn scopes(namespaces: &[String]) -> Vec<Option<String>> {
    if namespaces.is_empty() { vec![None] } else { namespaces.iter().cloned().map(Some).collect() }
}

/// Runs until `Context::end`. `namespaces` are those to watch; none means all.
pub async fn run(context: Arc<Context>, namespaces: Vec<String>, changes: Changes) {
    let watches = join_all(scopes(&namespaces).into_iter().map(|scope| run_scope(Arc::clone(&context), scope)));
    // When nobody tells of changes any more, the operator is ending as well.
    tokio::select! {
        _ = watches => {}
        () = pass_on(&context, changes) => {}
    }
}

/// Turns what others tell into triggers for the scopes.
async fn pass_on(context: &Context, mut changes: Changes) {
    loop {
        let trigger = tokio::select! {
            biased;
            Some(uid) = changes.reports.recv() => match context.memory.locate(&uid) {
                Some((namespace, name)) => Trigger::Object { namespace, name },
                None => continue,
            },
            Some(change) = changes.namespaces.recv() => Trigger::Namespace(change),
            else => return,
        };
        // Nobody listens yet: the first list brings everything.
        let _ = context.triggers.send(trigger);
    }
}

async fn run_scope(context: Arc<Context>, namespace: Option<String>) {
    let api: Api<PersistedCollection> = match &namespace {
        Some(namespace) => Api::namespaced(context.client.clone(), namespace),
        None => Api::all(context.client.clone()),
    };
    let mut watch = pin!(watcher(api, watcher::Config::default().page_size(LIST_PAGE)).default_backoff());
    let mut triggers = context.triggers.subscribe();
    let mut ending = context.ending.subscribe();
    let mut is_ending = false;
    let mut resync = interval_at(Instant::now() + RESYNC, RESYNC);
    let mut looks = FuturesUnordered::new();
    let (objects, queue) = (Objects::default(), Queue::default());
    let mut scope = Scope { context, namespace, objects, queue, is_listed: false, new: BTreeSet::new() };
    loop {
        while looks.len() < CONCURRENCY
            && let Some((object, collection)) = scope.next()
        {
            looks.push(look(Arc::clone(&scope.context), object, collection));
        }
        if is_ending && looks.is_empty() {
            return;
        }
        let due = scope.queue.next().filter(|_| looks.len() < CONCURRENCY);
        tokio::select! {
            // In this order, so that the same happens the same way each time; nothing here is ready for ever.
            biased;
            Some(Looked { object, is_done, again }) = looks.next() => {
                if is_done {
                    scope.on_looked(&object);
                }
                scope.queue.done(object, again.map(|pause| Instant::now() + pause));
            }
            Some(event) = watch.next() => scope.on_watched(event),
            trigger = triggers.recv() => match trigger {
                Ok(trigger) => scope.on_trigger(&trigger),
                // Any object may have been meant.
                Err(broadcast::error::RecvError::Lagged(_)) => scope.call_all(None),
                Err(broadcast::error::RecvError::Closed) => return,
            },
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            _ = resync.tick() => scope.call_all(None),
            _ = ending.wait_for(|ending| *ending), if !is_ending => {
                is_ending = true;
                scope.call_all(None);
            }
        }
    }
}

/// The objects of one namespace, or of all, and which of them to look at.
struct Scope {
    context: Arc<Context>,
    namespace: Option<String>,
    objects: Objects,
    queue: Queue<ObjectName>,
    /// Whether a whole list has come.
    is_listed: bool,
    /// Objects of the list that the server of their namespace was not told of yet.
    new: BTreeSet<ObjectName>,
}

impl Scope {
    /// The next object to look at that is still there.
    fn next(&mut self) -> Option<(ObjectName, PersistedCollection)> {
        loop {
            let object = self.queue.take(Instant::now())?;
            match self.objects.get(&object) {
                Some(collection) => return Some((object, collection)),
                None => self.queue.done(object, None),
            }
        }
    }

    fn on_watched(&mut self, event: watcher::Result<Event<PersistedCollection>>) {
        match event {
            Ok(Event::Apply(collection)) => {
                if let Some(object) = self.objects.insert(collection) {
                    self.queue.call(object, Instant::now());
                }
            }
            Ok(Event::Delete(collection)) => {
                if let Some(object) = self.objects.remove(&collection) {
                    self.on_looked(&object);
                }
                if let (Some(uid), Some(namespace)) = (collection.uid(), collection.namespace()) {
                    self.let_go(&uid, &namespace);
                }
            }
            Ok(Event::Init) => self.objects.begin_list(),
            Ok(Event::InitApply(collection)) => self.objects.list(collection),
            // Only a whole list says what is there.
            Ok(Event::InitDone) => {
                let there = self.objects.end_list();
                for (uid, namespace) in self.context.memory.all() {
                    // What was deleted while nobody watched.
                    if self.covers(&namespace) && !there.contains(&*uid) {
                        self.let_go(&uid, &namespace);
                    }
                }
                self.new = self.objects.names(None).collect();
                if !std::mem::replace(&mut self.is_listed, true) {
                    self.context.listed.send_modify(|listed| *listed += 1);
                }
                for namespace in self.context.servers.namespaces() {
                    self.tell_if_all_applied(&namespace);
                }
                self.call_all(None);
            }
            Err(error) => tracing::warn!(%error, "watching collections failed; trying again"),
        }
    }

    fn on_trigger(&mut self, trigger: &Trigger) {
        match trigger {
            Trigger::Object { namespace, name } => {
                if let Some(object) = self.objects.find(namespace, name) {
                    self.queue.call(object, Instant::now());
                }
            }
            Trigger::Namespace(NamespaceChange::Pods(namespace)) => {
                self.tell_if_all_applied(namespace);
                self.call_all(Some(namespace));
            }
            Trigger::Namespace(NamespaceChange::Served(namespace)) => {
                self.new.extend(self.objects.names(Some(namespace)));
                self.tell_if_all_applied(namespace);
                self.call_all(Some(namespace));
            }
            // Others write its statuses: they are read anew should it come back.
            Trigger::Namespace(NamespaceChange::Unserved(namespace)) => self.context.memory.forget_all_of(namespace),
        }
    }

    /// An object was looked at without an error.
    fn on_looked(&mut self, object: &ObjectName) {
        if self.context.servers.find(&object.namespace).is_some() && self.new.remove(object) {
            self.tell_if_all_applied(&object.namespace);
        }
    }

    /// Tells a server when it was told of all objects that there are: only then may it let go of what none of them needs.
    fn tell_if_all_applied(&self, namespace: &str) {
        let is_told = self.is_listed && !self.new.iter().any(|object| &*object.namespace == namespace);
        if let Some(server) = self.context.servers.find(namespace).filter(|_| is_told && self.covers(namespace)) {
            server.all_applied();
        }
    }

    fn call_all(&mut self, namespace: Option<&str>) {
        let now = Instant::now();
        self.objects.names(namespace).for_each(|object| self.queue.call(object, now));
    }

    fn covers(&self, namespace: &str) -> bool {
        self.namespace.as_deref().is_none_or(|covered| covered == namespace)
    }

    fn let_go(&self, uid: &str, namespace: &str) {
        if let Some(server) = self.context.servers.find(namespace) {
            server.remove(uid);
        }
        self.context.memory.forget(uid);
    }
}

/// What came of a look at an object.
struct Looked {
    object: ObjectName,
    is_done: bool,
    /// After what time to look again.
    again: Option<Duration>,
}

/// Looks at one object.
async fn look(context: Arc<Context>, object: ObjectName, collection: PersistedCollection) -> Looked {
    let collection = Arc::new(collection);
    let span = tracing::info_span!("reconcile", namespace = &*object.namespace, name = &*object.name);
    let outcome = reconcile(Arc::clone(&collection), Arc::clone(&context)).instrument(span).await;
    let is_done = outcome.is_ok();
    Looked { object, is_done, again: outcome.unwrap_or_else(|error| after_error(&context, &collection, &error)) }
}

fn after_error(context: &Context, collection: &PersistedCollection, error: &Error) -> Option<Duration> {
    let (name, namespace) = (collection.name_any(), collection.namespace().unwrap_or_default());
    let uid = collection.uid().unwrap_or_default();
    let failures = context.memory.failed(&uid);
    if error.is_race() {
        tracing::debug!(namespace, name, error = error.message(), "somebody else changed the object; looking again");
        return Some(backoff::after_race(failures));
    }
    tracing::warn!(namespace, name, reason = error.reason(), error = error.message(), failures, "reconciliation failed");
    error.is_retryable().then(|| backoff::after(&uid, failures))
}
