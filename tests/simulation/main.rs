//! Whole runs in one process: the engine, the wire, and models of workers, Clients and what is between them. Faults come from
//! a seed; a run that fails says its seed and goes the same way each time.

mod client;
mod codec;
mod collections;
#[cfg(feature = "operator")]
mod control;
mod ending;
mod happening;
mod link;
mod oracles;
mod random;
mod seeds;
mod server;
mod truth;
mod weather;
mod worker;
mod workers;
mod world;
