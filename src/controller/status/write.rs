//! Writes a status, sparingly.

use std::time::Duration;

use kube::Api;
use kube::api::{Patch, PatchParams};
use kube::{Resource, ResourceExt};
use serde_json::json;
use tokio::time::Instant;

use crate::api::labels::FIELD_MANAGER;
use crate::api::{PersistedCollection, PersistedCollectionStatus};
use crate::controller::Identity;
use crate::controller::error::Error;

/// Between two writes of one object's status.
const PAUSE: Duration = Duration::from_secs(2);

/// What was written last, which the cache may not show yet.
#[derive(Debug, Default)]
pub(in crate::controller) struct Written {
    status: Option<Box<(u64, PersistedCollectionStatus)>>,
    at: Option<Instant>,
}

impl Written {
    /// The newest status that is known: the object's own, or the last one written if the object is older.
    pub(in crate::controller) fn newest<'a>(
        &'a self,
        collection: &'a PersistedCollection,
    ) -> Option<&'a PersistedCollectionStatus> {
        match self.status.as_deref() {
            Some((version, status)) if version_of(collection).is_none_or(|seen| seen < *version) => Some(status),
            _ => collection.status.as_ref(),
        }
    }

    /// Lets go of the last status that was written once the object has it: with many objects it is most of what is remembered.
    pub(in crate::controller) fn forget_what_shows(&mut self, collection: &PersistedCollection) {
        let seen = version_of(collection);
        self.status = self.status.take().filter(|status| seen.is_none_or(|seen| seen < status.0));
    }

    /// How long the next write must wait.
    pub(in crate::controller) fn pause(&self) -> Option<Duration> {
        self.at.and_then(|at| PAUSE.checked_sub(at.elapsed())).filter(|pause| !pause.is_zero())
    }
}

/// Applies a status, as our own fields alone, and returns the object as it is then. The caller has seen to it that the
/// status differs and that `pause` is over.
///
/// # Errors
/// When the API server refuses: also when the object changed meanwhile, or is another one under the same name. Only the
/// resource version tells; a uid is not looked at when a status is applied.
pub(in crate::controller) async fn write(
    api: &Api<PersistedCollection>,
    identity: &Identity,
    collection: &PersistedCollection,
    status: &PersistedCollectionStatus,
    written: &mut Written,
) -> Result<PersistedCollection, Error> {
    let seen = version_of(collection).max(written.status.as_ref().map(|status| status.0));
    let object = json!({
        "apiVersion": PersistedCollection::api_version(&()),
        "kind": PersistedCollection::kind(&()),
        "metadata": { "name": identity.name, "resourceVersion": seen.map(|version| version.to_string()) },
        "status": status,
    });
    written.at = Some(Instant::now());
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let stored = api.patch_status(&identity.name, &parameters, &Patch::Apply(object)).await.map_err(Error::WriteStatus)?;
    written.status = version_of(&stored).map(|version| Box::new((version, status.clone())));
    Ok(stored)
}

/// Resource versions of one kind are numbers that grow, since Kubernetes 1.35 by contract and before it in fact.
fn version_of(collection: &PersistedCollection) -> Option<u64> {
    collection.resource_version()?.parse().ok()
}
