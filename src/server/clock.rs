//! The time of day, for messages; the engine gets its own.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970, as Dask's messages have them.
pub(crate) fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |elapsed| elapsed.as_secs_f64())
}

/// An epoch where nothing counts them: milliseconds since 1970, which grow from one start to the next.
pub fn epoch_of_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_millis() as u64)
}
