//! Values that only Python understands.

use std::fmt;

use bytes::Bytes;

/// A value in Dask's `Serialize` form: a msgpack header and its frames, passed on as they came.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Serialized {
    /// The header map, still in msgpack.
    pub header: Bytes,
    pub frames: Vec<Bytes>,
}

impl Serialized {
    /// How many bytes it takes on the wire, without framing.
    pub fn nbytes(&self) -> usize {
        self.header.len() + self.frames.iter().map(Bytes::len).sum::<usize>()
    }
}

impl fmt::Debug for Serialized {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serialized({} frames, {} B)", self.frames.len(), self.nbytes())
    }
}
