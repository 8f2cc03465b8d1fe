//! Names of Dask things: keys, addresses, run specs, priorities.
//!
//! Knows no socket, no message and no state; everything else may use it.

mod exception;
mod key;
mod plain_key;
mod priority;
mod run_spec;
mod serialized;
mod shuffle;
mod timedelta;

pub use exception::{exception_type, readable_exception};
pub use key::{KeyError, TaskKey, key_split};
pub use priority::Priority;
pub use run_spec::{DependencyNames, RunSpec, RunSpecForm, RunSpecPieces, Wrapping};
pub use serialized::Serialized;
pub use shuffle::{Partition, ShuffleId, ShuffleSpec};
pub use timedelta::{TimedeltaError, parse_timedelta};

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

/// Where a worker listens, as it states it: `tcp://10.0.0.7:40001`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerAddress(Arc<str>);

impl WorkerAddress {
    pub fn new(address: impl Into<Arc<str>>) -> Self {
        Self(address.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// How its comms are encoded: `tls` of `tls://10.0.0.7:40001`; without one it is `tcp`, as in Dask.
    pub fn scheme(&self) -> &str {
        self.0.split_once("://").map_or("tcp", |(scheme, _)| scheme)
    }

    /// The part between the scheme and the port: `10.0.0.7` of `tcp://10.0.0.7:40001`.
    pub fn host(&self) -> &str {
        let rest = self.0.split_once("://").map_or(&*self.0, |(_, rest)| rest);
        let host = rest.rsplit_once(':').map_or(rest, |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }

    /// Host and port without the scheme: `10.0.0.7:40001`.
    pub fn host_and_port(&self) -> &str {
        self.0.split_once("://").map_or(&*self.0, |(_, rest)| rest)
    }
}

impl fmt::Display for WorkerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A result in a worker's memory.
#[derive(Clone, Debug, PartialEq)]
pub struct HeldKey {
    pub key: TaskKey,
    pub nbytes: u64,
    pub type_pickle: Bytes,
    /// It is an actor, and lives there.
    pub is_actor: bool,
}

/// The name a Client gives itself: `Client-6b3f…`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientName(Arc<str>);

impl ClientName {
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(name.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_knows_its_host() {
        for (address, host) in [("tcp://10.0.0.7:40001", "10.0.0.7"), ("tls://[::1]:8786", "::1"), ("10.0.0.7:1", "10.0.0.7")] {
            assert_eq!(WorkerAddress::new(address).host(), host);
        }
        assert_eq!(WorkerAddress::new("tcp://10.0.0.7:40001").host_and_port(), "10.0.0.7:40001");
        assert_eq!(
            ["tls://10.0.0.7:1", "10.0.0.7:1"].map(|address| WorkerAddress::new(address).scheme().to_owned()),
            ["tls", "tcp"]
        );
    }
}
