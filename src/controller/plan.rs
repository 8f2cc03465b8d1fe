//! What to ask of the namespace's server for one collection. Pure.

use crate::api::PersistedCollectionStatus;
use crate::controller::validate::ValidatedCollection;
use crate::server::{CollectionRequest, Past};

/// The request that makes a server keep this collection.
pub fn plan(uid: &str, generation: i64, collection: ValidatedCollection, past: Past) -> CollectionRequest {
    let ValidatedCollection { build, requirements, revision } = collection;
    CollectionRequest { uid: uid.to_owned(), name: build.name.clone(), generation, revision, build, requirements, past }
}

/// What an operator before this one counted, as far as it is for the same spec.
pub fn past(status: Option<&PersistedCollectionStatus>, generation: i64) -> Past {
    let Some(status) = status.filter(|status| status.observed_generation == Some(generation)) else { return Past::default() };
    let count = |number: i64| u64::try_from(number).unwrap_or_default();
    let retries = status.retries.clone().unwrap_or_default();
    Past {
        generation: status.priority.as_ref().map(|priority| count(priority.generation)),
        retries_used: count(retries.used),
        worker_lost: count(retries.worker_lost),
        failures: retries.tasks.into_iter().map(|task| (task.key, u32::try_from(task.failed).unwrap_or(u32::MAX))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{PriorityStatus, RetriesStatus, TaskRetriesStatus};

    #[test]
    fn what_was_counted_goes_on_for_the_same_spec_alone() {
        let status = PersistedCollectionStatus {
            observed_generation: Some(3),
            priority: Some(PriorityStatus { generation: 7, ..PriorityStatus::default() }),
            retries: Some(RetriesStatus {
                used: 2,
                worker_lost: 1,
                tasks: vec![TaskRetriesStatus { key: "a".to_owned(), failed: 2 }],
                ..RetriesStatus::default()
            }),
            ..PersistedCollectionStatus::default()
        };
        let expected = Past { generation: Some(7), retries_used: 2, worker_lost: 1, failures: vec![("a".to_owned(), 2)] };
        assert_eq!(past(Some(&status), 3), expected);
        assert_eq!(past(Some(&status), 4), Past::default());
        assert_eq!(past(None, 1), Past::default());
    }
}
