//! Which pod is which worker, and what keeps a pod from becoming one; from the watch alone.
//!
//! `index` holds what was seen and answers questions without waiting; `facts` takes from a pod what matters, `departure` what
//! announces its end, `end` how it ended; `watch` keeps an index up to date. Decides nothing about workers: that is the server's.

mod departure;
mod end;
mod facts;
mod index;
pub mod watch;

pub use departure::Departure;
pub use end::End;
pub use facts::{PodFacts, Trouble, parse_resources};
pub use index::{Index, Mismatch, SharedIndex};
