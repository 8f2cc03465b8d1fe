//! The finalizer: an object goes only when the workers' memory was freed, or that took too long.

use std::time::Duration;

use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::time::Instant;

use crate::api::PersistedCollection;
use crate::api::labels::{FIELD_MANAGER, FINALIZER};
use crate::controller::Identity;
use crate::controller::error::Error;
use crate::server::Handle;

/// How long freeing memory may hold up a deletion.
const RELEASE_MAX: Duration = Duration::from_secs(60);
/// How soon to look again, should the server's word be lost.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// How far a release has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Release {
    /// Nothing holds the object any more.
    Done {
        /// The server was still at it when its time was up.
        timed_out: bool,
    },
    Waiting {
        look_again: Duration,
    },
}

pub(super) fn has_finalizer(collection: &PersistedCollection) -> bool {
    collection.metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER)
}

/// Makes the server let the collection go. Never waits for a server that is not there.
pub(super) fn release(handle: Option<&Handle>, uid: &str, since: &mut Option<Instant>) -> Release {
    let Some(handle) = handle else { return Release::Done { timed_out: false } };
    let begun = *since.get_or_insert_with(Instant::now);
    if handle.report(uid).is_none() {
        // Told all the same: a request may be on its way.
        handle.remove(uid);
        return Release::Done { timed_out: false };
    }
    handle.remove(uid);
    match RELEASE_MAX.checked_sub(begun.elapsed()) {
        Some(left) if !left.is_zero() => Release::Waiting { look_again: LOOK_AGAIN.min(left) },
        _ => Release::Done { timed_out: true },
    }
}

/// Puts our finalizer on the object.
///
/// # Errors
/// When the API server refuses, as it does when somebody else changed the object since we saw it.
pub(super) async fn add(
    api: &Api<PersistedCollection>,
    identity: &Identity,
    collection: &PersistedCollection,
) -> Result<(), Error> {
    let mut finalizers = collection.metadata.finalizers.clone().unwrap_or_default();
    finalizers.push(FINALIZER.to_owned());
    patch(api, identity, collection, &finalizers).await
}

/// Takes our finalizer off; an object that is gone already is as good.
///
/// # Errors
/// As `add`.
pub(super) async fn remove(
    api: &Api<PersistedCollection>,
    identity: &Identity,
    collection: &PersistedCollection,
) -> Result<(), Error> {
    let mut finalizers = collection.metadata.finalizers.clone().unwrap_or_default();
    finalizers.retain(|finalizer| finalizer != FINALIZER);
    match patch(api, identity, collection, &finalizers).await {
        Err(error) if error.is_gone() => Ok(()),
        other => other,
    }
}

/// The list is replaced as a whole; the resource version makes sure that it is the one we saw.
async fn patch(
    api: &Api<PersistedCollection>,
    identity: &Identity,
    collection: &PersistedCollection,
    finalizers: &[String],
) -> Result<(), Error> {
    let change = json!({
        "metadata": {
            "uid": identity.uid,
            "resourceVersion": collection.metadata.resource_version,
            "finalizers": finalizers,
        }
    });
    let parameters = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
    let patched = api.patch_metadata(&identity.name, &parameters, &Patch::Merge(change)).await;
    patched.map(|_| ()).map_err(Error::ChangeFinalizers)
}
