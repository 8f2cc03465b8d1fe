//! What only a real API server can show: schema and rules, defaults, field managers, the finalizer, a controller that runs.
//!
//! Needs etcd and kube-apiserver: `make envtest` brings them up and says where they are.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod cluster;
mod controller;
mod explain;
mod fields;
mod handover;
mod schema;
