//! Makes the cluster match one `PersistedCollection`, and says in its status how far that is.
//!
//! One file a step, in this order; `reconcile` walks through them and `run` calls it whenever something changed:
//!
//! ```text
//! dereference ► validate ► plan ► apply ► status
//!   (client)     (pure)   (pure) (server)  (pure, then client)
//! ```
//!
//! `objects` keeps what the watch showed, `queue` what is to be looked at, `memory` what was done about it, each as small as it can.
//! Beside them: `finalizer` lets a deleted object go when its memory was freed, `events` tells people what happened,
//! `endpoint` keeps the Service of a namespace. Writes nothing to an object but its finalizer and its status.

mod apply;
mod backoff;
pub mod dereference;
pub mod endpoint;
mod error;
pub mod events;
mod finalizer;
mod memory;
mod objects;
pub mod plan;
mod queue;
mod reconcile;
mod run;
pub mod status;
pub mod validate;

use std::sync::{Arc, RwLock};

use kube::Client;
use tokio::sync::{broadcast, watch};

pub use apply::Servers;
pub use error::Error;
pub use reconcile::reconcile;
pub use run::{Changes, NamespaceChange, run, scopes};

use crate::api::PersistedCollection;
use crate::pods::SharedIndex;
use memory::Memory;

/// Triggers that a scope may fall behind by before it looks at everything.
const TRIGGERS_MAX: usize = 1024;

/// What reconciliations share.
pub struct Context {
    client: Client,
    recorder: events::Recorder,
    servers: Servers,
    pods: SharedIndex,
    memory: Memory,
    triggers: broadcast::Sender<run::Trigger>,
    /// Of how many scopes a whole list has come.
    listed: watch::Sender<usize>,
    ending: watch::Sender<bool>,
}

impl Context {
    /// `instance` is the operator's own pod, which Events name.
    pub fn new(client: Client, instance: Option<String>, servers: Servers, pods: SharedIndex) -> Self {
        Self {
            recorder: events::Recorder::new(client.clone(), instance),
            client,
            servers,
            pods,
            memory: Memory::default(),
            listed: watch::Sender::new(0),
            triggers: broadcast::Sender::new(TRIGGERS_MAX),
            ending: watch::Sender::new(false),
        }
    }

    /// Has every status written that differs from what is known, however recent the last one is; then `run` ends.
    pub fn end(&self) {
        self.ending.send_replace(true);
    }

    /// Waits until the objects of so many scopes were listed.
    pub async fn listed(&self, scopes: usize) {
        // The sender lives as long as we do.
        let _ = self.listed.subscribe().wait_for(|listed| *listed >= scopes).await;
    }

    /// A context without pods, for tests.
    pub fn without_pods(client: Client, servers: Servers) -> Self {
        Self::new(client, Some("test".to_owned()), servers, Arc::new(RwLock::default()))
    }
}

/// Which object it is: a re-created one of the same name is another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) generation: i64,
}

impl Identity {
    fn of(collection: &PersistedCollection) -> Result<Self, Error> {
        let metadata = &collection.metadata;
        let missing = |field| Error::Metadata { field };
        Ok(Self {
            namespace: metadata.namespace.clone().ok_or(missing("namespace"))?,
            name: metadata.name.clone().ok_or(missing("name"))?,
            uid: metadata.uid.clone().ok_or(missing("uid"))?,
            generation: metadata.generation.ok_or(missing("generation"))?,
        })
    }
}
