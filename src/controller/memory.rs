//! What the controller remembers of objects between two reconciliations. Losing it costs a few reads and writes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::api::PersistedCollection;
use crate::controller::Identity;
use crate::controller::dereference::Fetched;
use crate::controller::status::Written;
use crate::controller::validate;
use crate::server::{CollectionRequest, Past};

/// After this time it is tried again though the watch shows nothing else.
const REFUSED_MAX: Duration = Duration::from_secs(30);

/// Of one object, by its uid.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    pub(super) fetched: Option<Box<Fetched>>,
    /// What validation said of a generation and a text, since neither is checked twice.
    pub(super) validated: Option<Validated>,
    /// What the server was asked for last. It keeps the same one.
    pub(super) applied: Option<Arc<CollectionRequest>>,
    /// What the first status that was seen tells of an operator before this one.
    pub(super) past: Option<Past>,
    pub(super) written: Written,
    pub(super) refused: Option<Refused>,
    pub(super) without_server_since: Option<Instant>,
    pub(super) releasing_since: Option<Instant>,
}

/// A version of the object for which a write was refused: there is a later one, or none, and every write would be refused until
/// the watch shows that.
#[derive(Debug)]
pub(super) struct Refused {
    version: Box<str>,
    at: Instant,
}

impl Refused {
    pub(super) fn of(collection: &PersistedCollection) -> Option<Self> {
        Some(Self { version: collection.metadata.resource_version.as_deref()?.into(), at: Instant::now() })
    }

    /// For how long there is nothing to do about an object as it is shown.
    pub(super) fn wait(&self, collection: &PersistedCollection) -> Option<Duration> {
        let is_shown = collection.metadata.resource_version.as_deref() == Some(&*self.version);
        REFUSED_MAX.checked_sub(self.at.elapsed()).filter(|wait| is_shown && !wait.is_zero())
    }
}

#[derive(Debug)]
pub(super) struct Validated {
    pub(super) generation: i64,
    pub(super) text: Option<String>,
    /// What to ask for then.
    pub(super) outcome: Result<Arc<CollectionRequest>, Box<validate::Error>>,
}

/// Everything, by uid. Objects are reconciled one at a time each, so their locks are never waited for.
#[derive(Debug, Default)]
pub(super) struct Memory {
    objects: Mutex<HashMap<Box<str>, Entry>>,
}

#[derive(Debug)]
struct Entry {
    namespace: Box<str>,
    name: Box<str>,
    /// Reconciliations that failed in a row.
    failures: u32,
    remembered: Arc<tokio::sync::Mutex<Remembered>>,
}

impl Memory {
    pub(super) fn of(&self, identity: &Identity) -> Arc<tokio::sync::Mutex<Remembered>> {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = objects.entry(identity.uid.as_str().into()).or_insert_with(|| Entry {
            namespace: identity.namespace.as_str().into(),
            name: identity.name.as_str().into(),
            failures: 0,
            remembered: Arc::default(),
        });
        Arc::clone(&entry.remembered)
    }

    pub(super) fn forget(&self, uid: &str) {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// Whether an object of this uid was looked at, and nobody has told since that it is gone.
    pub(super) fn knows(&self, uid: &str) -> bool {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner).contains_key(uid)
    }

    /// Forgets the objects of a namespace that others look after from here on.
    pub(super) fn forget_all_of(&self, namespace: &str) {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, entry| &*entry.namespace != namespace);
    }

    /// Namespace and name of a uid.
    pub(super) fn locate(&self, uid: &str) -> Option<(Box<str>, Box<str>)> {
        let objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        objects.get(uid).map(|entry| (entry.namespace.clone(), entry.name.clone()))
    }

    /// Everything known, as (uid, namespace).
    pub(super) fn all(&self) -> Vec<(Box<str>, Box<str>)> {
        let objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        objects.iter().map(|(uid, entry)| (uid.clone(), entry.namespace.clone())).collect()
    }

    /// Counts one more failure in a row, and tells how many that makes.
    pub(super) fn failed(&self, uid: &str) -> u32 {
        let mut objects = self.objects.lock().unwrap_or_else(PoisonError::into_inner);
        objects.get_mut(uid).map_or(1, |entry| {
            entry.failures = entry.failures.saturating_add(1);
            entry.failures
        })
    }

    pub(super) fn succeeded(&self, uid: &str) {
        if let Some(entry) = self.objects.lock().unwrap_or_else(PoisonError::into_inner).get_mut(uid) {
            entry.failures = 0;
        }
    }
}
