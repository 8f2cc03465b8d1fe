//! How to run a task, which only workers understand.

use std::fmt;

use bytes::Bytes;

/// A pickle of a Dask graph node, passed on as it came. Mainstay never looks inside.
#[derive(Clone, PartialEq, Eq)]
pub struct RunSpec(Bytes);

impl RunSpec {
    pub fn new(pickle: impl Into<Bytes>) -> Self {
        Self(pickle.into())
    }

    pub fn pickle(&self) -> &Bytes {
        &self.0
    }
}

impl fmt::Debug for RunSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RunSpec({} B)", self.0.len())
    }
}
