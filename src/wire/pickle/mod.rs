//! The few pickles that Mainstay makes or reads itself.
//!
//! It makes calls of importable names with plain arguments, and reads nothing but plain data: whatever would run code is
//! refused, so reading a peer's pickle is as safe as reading its msgpack.

mod global;
mod object;
mod plain;
mod run_spec;
mod shuffle;

pub use global::first_global;
pub use object::Object;
pub use plain::{PlainError, read_plain};
pub use run_spec::run_spec_pickle;
pub(super) use run_spec::{write_after_blob, write_up_to_blob};
