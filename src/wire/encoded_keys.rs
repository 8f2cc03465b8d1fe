//! Many keys at once, as a peer wrote them.

use std::fmt;

use bytes::Bytes;

use super::msgpack::{Reader, Token};
use crate::dask::TaskKey;

/// An array of keys in msgpack. There may be a million that are only passed on, so none is looked at before somebody asks.
#[derive(Clone, PartialEq, Eq)]
pub struct EncodedKeys(Bytes);

impl EncodedKeys {
    /// Takes an array; what is none has no keys.
    pub(super) fn new(array: Bytes) -> Self {
        Self(array)
    }

    pub fn is_empty(&self) -> bool {
        !matches!(Reader::new(&self.0).token(), Ok(Token::Array(1..)))
    }

    /// The array.
    pub fn as_msgpack(&self) -> &Bytes {
        &self.0
    }

    /// The elements that are keys. Each is copied, since it would hold all of the message that it came in.
    pub fn keys(&self) -> Vec<TaskKey> {
        let mut reader = Reader::new(&self.0);
        let Ok(Token::Array(length)) = reader.token() else { return Vec::new() };
        let mut keys = Vec::with_capacity(reader.capacity(length));
        for _ in 0..length {
            let start = reader.position();
            if reader.skip(&mut usize::MAX.clone()).is_err() {
                break;
            }
            keys.extend(TaskKey::from_msgpack(self.0[start..reader.position()].to_vec()));
        }
        keys
    }
}

impl From<&[TaskKey]> for EncodedKeys {
    fn from(keys: &[TaskKey]) -> Self {
        let mut encoder = super::Encoder::new();
        encoder.keys(keys);
        Self(encoder.into_document().into())
    }
}

impl fmt::Debug for EncodedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_key_is_passed_over() {
        let keys = [TaskKey::from_text("a"), TaskKey::from_msgpack(&b"\x92\xa1x\x01"[..]).unwrap()];
        let encoded = EncodedKeys::from(&keys[..]);
        assert_eq!((encoded.is_empty(), encoded.keys()), (false, keys.to_vec()));
        let odd = EncodedKeys::new(Bytes::from_static(b"\x93\xa1a\x80\x92\xa1x\x01"));
        assert_eq!(odd.keys(), keys);
        for none in [&b"\x90"[..], b"\xc0", b""] {
            let none = EncodedKeys::new(Bytes::from_static(none));
            assert!(none.is_empty() && none.keys().is_empty());
        }
    }
}
