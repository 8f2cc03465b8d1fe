//! Reconciliation against a scripted API server: exact requests, then silence.
//!
//! The API server answers in this process and writes down what it is asked; the clock is the test's. Each test says: given
//! an object and a server of its namespace, when it is reconciled, then exactly these requests were made.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod api_server;
mod deletion;
mod progress;
mod source;
mod start;
mod world;
