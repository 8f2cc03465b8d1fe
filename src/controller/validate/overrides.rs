//! `spec.overrides`: patterns of keys, and what is asked for the tasks that they match.

use super::{Error, Problem, at_most, distinct, name, validate_priority, validate_resources, validate_retries, validate_workers};
use crate::api;
use crate::api::limits::{OVERRIDE_KEYS_LENGTH_MAX, OVERRIDES_MAX};
use crate::engine::{Annotations, Override, Overrides, OverridesError};

const FIELD: &str = "spec.overrides";

pub(super) fn validate(overrides: &[api::Override]) -> Result<Overrides, Error> {
    at_most(FIELD, overrides.len(), OVERRIDES_MAX)?;
    let list = overrides.iter().enumerate().map(validate_one).collect::<Result<Vec<_>, _>>()?;
    let patterns: Vec<String> = list.iter().map(|one| one.keys.clone()).collect();
    distinct(FIELD, &patterns)?;
    Overrides::new(list).map_err(|error| match error {
        OverridesError::TooMany { found } => Error::new(FIELD, Problem::TooMany { found, max: OVERRIDES_MAX }),
        OverridesError::Pattern { index, .. } => {
            Error::new(format!("{FIELD}[{index}].keys"), Problem::NotAPattern { what: error.to_string() })
        }
    })
}

fn validate_one((index, one): (usize, &api::Override)) -> Result<Override, Error> {
    let api::Override { keys, retries, priority, workers, allow_other_workers, resources } = one;
    let of = |part: &str| format!("{FIELD}[{index}].{part}");
    name::length(&of("keys"), keys, OVERRIDE_KEYS_LENGTH_MAX)?;
    let conditions = Annotations {
        retries: retries.map(|retries| validate_retries(&of("retries"), retries)).transpose()?,
        priority: priority.map(|priority| validate_priority(&of("priority"), priority)).transpose()?,
        workers: workers.as_ref().map(|workers| validate_workers(&of("workers"), workers)).transpose()?,
        allow_other_workers: *allow_other_workers,
        resources: resources.as_ref().map(|resources| validate_resources(&of("resources"), resources)).transpose()?,
        executor: None,
    };
    if conditions == Annotations::default() {
        return Err(Error::new(format!("{FIELD}[{index}]"), Problem::EmptyOverride));
    }
    Ok(Override { keys: keys.clone(), conditions })
}

const _: () = assert!(OVERRIDES_MAX == crate::engine::OVERRIDES_MAX);
