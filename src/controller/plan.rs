//! What to ask of the namespace's server for one collection. Pure.

use std::sync::Arc;

use crate::controller::validate::ValidatedCollection;
use crate::server::CollectionRequest;

/// The request that makes a server keep this collection.
pub fn plan(uid: &str, generation: i64, collection: ValidatedCollection) -> CollectionRequest {
    let ValidatedCollection { build, requirements, revision } = collection;
    CollectionRequest {
        uid: uid.to_owned(),
        name: build.name.clone(),
        generation,
        revision,
        build: Arc::new(build),
        requirements,
    }
}
