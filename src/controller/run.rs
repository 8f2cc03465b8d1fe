//! Calls `reconcile` whenever something changed: the object, what the server says of it, or the pods of its namespace.

use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, Stream, StreamExt};
use kube::runtime::controller::{Action, Config, ReconcileRequest, applier};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use tokio::sync::{broadcast, mpsc};

use crate::api::PersistedCollection;
use crate::controller::reconcile::reconcile;
use crate::controller::{Context, Error, backoff};

/// Objects that are reconciled at the same time.
const CONCURRENCY: u16 = 16;
/// After somebody else's change came in between.
const AFTER_RACE: Duration = Duration::from_millis(250);

/// What others tell the controller.
pub struct Changes {
    /// Uids of collections whose report is another now.
    pub reports: mpsc::UnboundedReceiver<String>,
    /// Namespaces with other pods, or another server.
    pub namespaces: mpsc::UnboundedReceiver<String>,
}

/// Why to look at objects.
#[derive(Clone, Debug)]
pub(super) enum Trigger {
    Object { namespace: String, name: String },
    Namespace(String),
}

/// Runs until it is dropped. `namespaces` are those to watch; none means all.
pub async fn run(context: Arc<Context>, namespaces: Vec<String>, changes: Changes) {
    let scopes: Vec<Option<String>> = if namespaces.is_empty() { vec![None] } else { namespaces.into_iter().map(Some).collect() };
    let watches = join_all(scopes.into_iter().map(|scope| run_scope(Arc::clone(&context), scope)));
    // The watches never end; when nobody tells of changes any more, the operator is ending.
    tokio::select! {
        _ = watches => {}
        () = pass_on(&context, changes) => {}
    }
}

/// Turns what others tell into triggers for the scopes.
async fn pass_on(context: &Context, mut changes: Changes) {
    loop {
        let trigger = tokio::select! {
            Some(uid) = changes.reports.recv() => match context.memory.locate(&uid) {
                Some((namespace, name)) => Trigger::Object { namespace, name },
                None => continue,
            },
            Some(namespace) = changes.namespaces.recv() => Trigger::Namespace(namespace),
            else => return,
        };
        // Nobody listens yet: the first list brings everything.
        let _ = context.triggers.send(trigger);
    }
}

async fn run_scope(context: Arc<Context>, scope: Option<String>) {
    let api: Api<PersistedCollection> = match &scope {
        Some(namespace) => Api::namespaced(context.client.clone(), namespace),
        None => Api::all(context.client.clone()),
    };
    let (store, writer) = reflector::store();
    let watch = watcher(api, watcher::Config::default())
        .default_backoff()
        .modify(|collection| collection.managed_fields_mut().clear())
        .reflect(writer);
    let from_watch = requests_of_watch(watch, store.clone(), Arc::clone(&context), scope.clone());
    let from_triggers = requests_of_triggers(context.triggers.subscribe(), store.clone(), scope);
    let queue = stream::select(from_watch, from_triggers).map(|object| Ok::<_, Infallible>(ReconcileRequest::from(object)));
    let config = Config::default().concurrency(CONCURRENCY);
    let reconcile = |collection: Arc<PersistedCollection>, context| reconcile(collection, context).boxed();
    applier(reconcile, error_policy, context, store, queue, config)
        .for_each(|outcome| async move {
            if let Err(error) = outcome {
                // Failed reconciliations were logged by the error policy; what is left is an object that is gone.
                tracing::trace!(%error, "reconciled nothing");
            }
        })
        .await;
}

/// The objects that a watch shows. Those that it takes back are let go here, for the queue no longer finds them.
fn requests_of_watch(
    watch: impl Stream<Item = watcher::Result<watcher::Event<PersistedCollection>>> + Send + 'static,
    store: Store<PersistedCollection>,
    context: Arc<Context>,
    scope: Option<String>,
) -> BoxStream<'static, ObjectRef<PersistedCollection>> {
    watch
        .flat_map(move |event| {
            let objects = match event {
                Ok(watcher::Event::Apply(collection)) => vec![ObjectRef::from_obj(&collection)],
                Ok(watcher::Event::Delete(collection)) => {
                    if let (Some(uid), Some(namespace)) = (collection.uid(), collection.namespace()) {
                        let_go(&context, &uid, &namespace);
                    }
                    Vec::new()
                }
                // Only a whole list is in the store.
                Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => Vec::new(),
                Ok(watcher::Event::InitDone) => {
                    let all = store.state();
                    let_go_of_the_missing(&context, &all, scope.as_deref());
                    all.iter().map(|collection| ObjectRef::from_obj(collection.as_ref())).collect()
                }
                Err(error) => {
                    tracing::warn!(%error, "watching collections failed; trying again");
                    Vec::new()
                }
            };
            stream::iter(objects)
        })
        .boxed()
}

/// What was deleted while nobody watched.
fn let_go_of_the_missing(context: &Context, all: &[Arc<PersistedCollection>], scope: Option<&str>) {
    let there: HashSet<String> = all.iter().filter_map(|collection| collection.uid()).collect();
    for (uid, namespace, _) in context.memory.all() {
        if scope.is_none_or(|scope| scope == namespace) && !there.contains(&uid) {
            let_go(context, &uid, &namespace);
        }
    }
}

fn let_go(context: &Context, uid: &str, namespace: &str) {
    if let Some(server) = context.servers.find(namespace) {
        server.remove(uid);
    }
    context.memory.forget(uid);
}

fn requests_of_triggers(
    triggers: broadcast::Receiver<Trigger>,
    store: Store<PersistedCollection>,
    scope: Option<String>,
) -> BoxStream<'static, ObjectRef<PersistedCollection>> {
    let in_scope = move |namespace: &str| scope.as_deref().is_none_or(|scope| scope == namespace);
    stream::unfold(triggers, |mut triggers| async {
        let trigger = match triggers.recv().await {
            Ok(trigger) => Some(trigger),
            Err(broadcast::error::RecvError::Lagged(_)) => None,
            Err(broadcast::error::RecvError::Closed) => return None,
        };
        Some((trigger, triggers))
    })
    .flat_map(move |trigger| {
        let all_of = |is_wanted: &dyn Fn(&str) -> bool| {
            let all = store.state();
            let wanted = all.iter().filter(|collection| collection.namespace().is_some_and(|namespace| is_wanted(&namespace)));
            wanted.map(|collection| ObjectRef::from_obj(collection.as_ref())).collect::<Vec<_>>()
        };
        stream::iter(match trigger {
            Some(Trigger::Object { namespace, name }) if in_scope(&namespace) => vec![ObjectRef::new(&name).within(&namespace)],
            Some(Trigger::Object { .. }) => Vec::new(),
            Some(Trigger::Namespace(namespace)) => all_of(&|other| other == namespace),
            // Triggers were lost: any object may have been meant.
            None => all_of(&|_| true),
        })
    })
    .boxed()
}

#[expect(clippy::needless_pass_by_value, reason = "kube calls it so")]
fn error_policy(collection: Arc<PersistedCollection>, error: &Error, context: Arc<Context>) -> Action {
    let (name, namespace) = (collection.name_any(), collection.namespace().unwrap_or_default());
    if error.is_race() {
        tracing::debug!(namespace, name, error = error.message(), "somebody else changed the object; looking again");
        return Action::requeue(AFTER_RACE);
    }
    let failures = context.memory.failed(&collection.uid().unwrap_or_default());
    tracing::warn!(namespace, name, reason = error.reason(), error = error.message(), failures, "reconciliation failed");
    if error.is_retryable() { Action::requeue(backoff::after(failures)) } else { Action::await_change() }
}
