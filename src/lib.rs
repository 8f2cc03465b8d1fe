//! Mainstay keeps Dask collections in cluster memory, as a Kubernetes resource says.
//!
//! `dask`, `engine`, `shuffle`, `wire`, `translate` and `coordination` decide and encode without I/O and compile without the feature
//! `operator`; the other modules connect them to sockets, to Kubernetes and to people. ARCHITECTURE.md has the map.

pub mod coordination;
pub mod dask;
pub mod engine;
pub mod error;
pub mod shuffle;
pub mod translate;
pub mod wire;

#[cfg(feature = "operator")]
pub mod api;
#[cfg(feature = "operator")]
pub mod comm;
#[cfg(feature = "operator")]
pub mod controller;
#[cfg(feature = "operator")]
pub mod local;
#[cfg(feature = "operator")]
pub mod operator;
#[cfg(feature = "operator")]
pub mod pods;
#[cfg(feature = "operator")]
pub mod server;
#[cfg(feature = "operator")]
pub mod telemetry;
