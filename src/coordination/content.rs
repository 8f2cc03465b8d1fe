//! What variables and queues hold.

use bytes::Bytes;

use crate::dask::TaskKey;
use crate::wire::value::Value;

/// What every value takes in memory, whatever it is.
const VALUE_BYTES: usize = size_of::<Value>();

/// A value, or a future by its key.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    Future(TaskKey),
    /// Goes back as it came.
    Value(Value),
}

impl Content {
    pub(super) fn future(&self) -> Option<&TaskKey> {
        if let Self::Future(key) = self { Some(key) } else { None }
    }

    /// Roughly how many bytes it takes to hold it.
    pub(super) fn nbytes(&self) -> usize {
        match self {
            Self::Future(key) => VALUE_BYTES + key.as_msgpack().len(),
            Self::Value(value) => nbytes(value),
        }
    }
}

fn nbytes(value: &Value) -> usize {
    let frames = |frames: &[Bytes]| frames.iter().map(Bytes::len).sum::<usize>();
    let inside = match value {
        Value::Nil | Value::Boolean(_) | Value::Integer(_) | Value::Unsigned(_) | Value::Float(_) => 0,
        Value::Text(text) => text.len(),
        Value::Binary(binary) => binary.len(),
        Value::Array(elements) | Value::Set(elements) => elements.iter().map(nbytes).sum(),
        Value::Map(entries) => entries.iter().map(|(key, value)| nbytes(key) + nbytes(value)).sum(),
        Value::Serialized(serialized) => serialized.nbytes(),
        Value::Pickled(pickled) => pickled.header.len() + frames(&pickled.buffers),
    };
    VALUE_BYTES + inside
}
