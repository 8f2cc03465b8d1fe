//! Which pod is which worker, and what keeps a pod from becoming one; from the watch alone.
//!
//! `index` holds what was seen and answers questions without waiting; `facts` takes from a pod what matters; `watch` keeps
//! an index up to date. Decides nothing about workers: that is the server's.

mod facts;
mod index;
pub mod watch;

pub use facts::{PodFacts, Trouble, parse_resources};
pub use index::{Index, Mismatch, SharedIndex};
