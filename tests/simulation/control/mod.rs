//! The controller, as it is, against a model of the API server and of the namespace's server.
//!
//! Everything runs in one thread whose clock jumps from one thing that is due to the next, so a run goes the same way each
//! time. The controller keeps nothing but what it can read again: it may be ended and started at any moment.

mod api_server;
mod enumerations;
mod namespace;
mod operator;
mod seeds;
mod trouble;
