//! The time of day, for messages; the engine gets its own.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970, as Dask's messages have them.
pub(crate) fn unix_seconds() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |elapsed| elapsed.as_secs_f64())
}
