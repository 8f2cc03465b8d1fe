//! Values that stand in frames of their own, which only Python understands.
//!
//! Frame `n` holds a msgpack header with `num-sub-frames`, that many frames follow. Nothing here looks into a pickle.
//!
//! Source: distributed 2026.8.0, protocol/core.py: `dumps`, `loads`; protocol/serialize.py: `serialize`, `ToPickle`.

use std::fmt;

use bytes::{Bytes, BytesMut};
use thiserror::Error;

use super::document::DocumentError;
use super::encode::Encoder;
use super::frame::Message;
use super::limits::ELEMENTS_MAX;
use super::msgpack::{Reader, Token};
use crate::dask::Serialized;

/// A value that its reader unpickles at once (`ToPickle`), passed on as it came.
#[derive(Clone, PartialEq, Eq)]
pub struct Pickled {
    /// The header map, still in msgpack; holds the pickle itself.
    pub header: Bytes,
    /// Buffers that the pickle keeps outside.
    pub buffers: Vec<Bytes>,
}

/// Why the bytes inside a value could not be had.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OpaqueError {
    #[error("a value's header is no map with the fields it needs")]
    Header,
    #[error("a value is compressed with {found}, though no compression was agreed on")]
    Compressed { found: String },
    #[error("a value of type {found} is not plain bytes")]
    NotPlainBytes { found: String },
}

impl Pickled {
    /// Of a pickle that keeps nothing outside.
    pub fn new(pickle: &[u8]) -> Self {
        let mut header = Vec::with_capacity(pickle.len() + 64);
        write_pickled_head(&mut header, pickle.len());
        header.extend_from_slice(pickle);
        header.extend_from_slice(PICKLED_TAIL);
        Self { header: header.into(), buffers: Vec::new() }
    }

    /// The pickle.
    ///
    /// # Errors
    /// When the header has none.
    pub fn pickle(&self) -> Result<Bytes, OpaqueError> {
        match find(&self.header, "pickled-obj") {
            Some(Token::Binary(pickle)) => Ok(self.header.slice_ref(pickle)),
            _ => Err(OpaqueError::Header),
        }
    }
}

impl fmt::Debug for Pickled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nbytes = self.header.len() + self.buffers.iter().map(Bytes::len).sum::<usize>();
        write!(f, "Pickled({} buffers, {nbytes} B)", self.buffers.len())
    }
}

/// The header of a [`Pickled`] without buffers, up to the pickle.
pub(super) fn write_pickled_head(buffer: &mut Vec<u8>, pickle_length: usize) {
    buffer.push(0x83);
    buffer.extend_from_slice(b"\xabpickled-obj");
    // Writing to a Vec cannot fail; a pickle above 4 GiB is never made, since no frame of that size is read.
    let _ = rmp::encode::write_bin_len(buffer, pickle_length as u32);
}

/// The rest of it.
pub(super) const PICKLED_TAIL: &[u8] = b"\xabcompression\x90\xaenum-sub-frames\x00";

/// What plain bytes look like as a Dask value: `distributed.protocol.serialize(b"…")`.
pub fn plain_bytes(bytes: Bytes) -> Serialized {
    plain_bytes_of(vec![bytes])
}

/// The same of bytes in pieces, which their reader joins: so none has to be copied here.
pub fn plain_bytes_of(pieces: Vec<Bytes>) -> Serialized {
    const BYTES: &[u8] = b"\x80\x04\x8c\x08builtins\x8c\x05bytes\x93.";
    let mut encoder = Encoder::new();
    encoder.encoded(b"\x86\xaaserializer\xa4dask\xa4type\xa5bytes\xaftype-serialized");
    encoder.binary(BYTES);
    encoder.encoded(b"\xaasub-header\x80\xabcompression");
    encoder.array(pieces.len());
    pieces.iter().for_each(|_| encoder.nil());
    encoder.encoded(b"\xaenum-sub-frames");
    encoder.unsigned(pieces.len() as u64);
    Serialized { header: encoder.into_document().into(), frames: pieces }
}

/// What a pickle looks like as a Dask value (`Serialize` of the family `pickle`).
pub fn pickle_value(pickle: Bytes) -> Serialized {
    Serialized {
        header: Bytes::from_static(b"\x83\xaaserializer\xa6pickle\xa9writeable\x90\xaenum-sub-frames\x01"),
        frames: vec![pickle],
    }
}

/// Gives the bytes of a value of type `bytes`, which Dask sends as they are.
///
/// # Errors
/// When the value is something else, or compressed.
pub fn into_plain_bytes(serialized: &Serialized) -> Result<Bytes, OpaqueError> {
    let header = &serialized.header;
    let name = match (find(header, "serializer"), find(header, "type")) {
        (Some(Token::Text("dask")), Some(Token::Text(name))) => name,
        (Some(Token::Text(family)), _) => return Err(OpaqueError::NotPlainBytes { found: format!("of the family {family}") }),
        _ => return Err(OpaqueError::Header),
    };
    if name != "bytes" && name != "builtins.bytes" {
        return Err(OpaqueError::NotPlainBytes { found: name.to_owned() });
    }
    if let Some(found) = compression(header) {
        return Err(OpaqueError::Compressed { found });
    }
    // A value above 64 MiB comes in shards.
    match &serialized.frames[..] {
        [only] => Ok(only.clone()),
        shards => {
            let mut whole = BytesMut::with_capacity(shards.iter().map(Bytes::len).sum());
            for shard in shards {
                whole.extend_from_slice(shard);
            }
            Ok(whole.freeze())
        }
    }
}

/// The first compression that a header names.
fn compression(header: &[u8]) -> Option<String> {
    let mut reader = at(header, "compression")?;
    for _ in 0..reader.array().ok()? {
        if let Token::Text(name) = reader.token().ok()? {
            return Some(name.to_owned());
        }
    }
    None
}

/// The value that a header has under a name, if it is no array or map.
fn find<'a>(header: &'a [u8], name: &str) -> Option<Token<'a>> {
    at(header, name)?.token().ok()
}

/// Where a header has the value of a name.
fn at<'a>(header: &'a [u8], name: &str) -> Option<Reader<'a>> {
    let mut elements_left = ELEMENTS_MAX;
    let mut reader = Reader::new(header);
    for _ in 0..reader.map().ok()? {
        let is_it = matches!(reader.token().ok()?, Token::Text(text) if text == name);
        if is_it {
            return Some(reader);
        }
        reader.skip(&mut elements_left).ok()?;
    }
    None
}

/// Binaries below this are copied out of their message: what is small and kept for long, as the pickle of a type or of an
/// exception, must not keep the whole buffer that it came in.
const COPIED_BELOW: usize = 4096;

/// A piece of a message as it can be kept.
pub(super) fn kept(piece: &Bytes) -> Bytes {
    if piece.len() < COPIED_BELOW { Bytes::copy_from_slice(piece) } else { piece.clone() }
}

impl Message {
    /// The msgpack document that the other frames belong to.
    pub fn document(&self) -> &Bytes {
        static EMPTY: Bytes = Bytes::new();
        self.frames.first().unwrap_or(&EMPTY)
    }

    /// The value that `{"__Serialized__": frame}` stands for.
    pub(super) fn serialized(&self, frame: i64) -> Result<Serialized, DocumentError> {
        let (header, frames) = self.opaque(frame)?;
        Ok(Serialized { header, frames })
    }

    /// The value that `{"__Pickled__": frame}` stands for.
    pub(super) fn pickled(&self, frame: i64) -> Result<Pickled, DocumentError> {
        let (header, buffers) = self.opaque(frame)?;
        Ok(Pickled { header, buffers })
    }

    /// Fails when the document refers to frames that are not there, or to the same ones twice: no peer does, and a
    /// small document could make a large value so. The document itself was checked before.
    pub(super) fn check_references(&self) -> Result<(), DocumentError> {
        let mut left = self.frames.len().saturating_sub(1);
        let mut reader = Reader::new(self.document());
        while reader.remaining() > 0 {
            if reader.token()? != Token::Map(1) {
                continue;
            }
            let mut entry = reader;
            let Token::Text("__Serialized__" | "__Pickled__") = entry.token()? else { continue };
            if let Token::Integer(frame @ 1..) = entry.token()? {
                let (_, frames) = self.parts(frame)?;
                left = left.checked_sub(1 + frames.len()).ok_or(DocumentError::SharedFrames)?;
            }
        }
        Ok(())
    }

    fn opaque(&self, frame: i64) -> Result<(Bytes, Vec<Bytes>), DocumentError> {
        let (header, frames) = self.parts(frame)?;
        Ok((kept(header), frames.iter().map(kept).collect()))
    }

    /// A value's header and frames.
    fn parts(&self, frame: i64) -> Result<(&Bytes, &[Bytes]), DocumentError> {
        let error = || DocumentError::NoSuchFrame { frame, frames: self.frames.len() };
        let start = usize::try_from(frame).map_err(|_| error())?;
        let header = self.frames.get(start).ok_or_else(error)?;
        let Some(Token::Integer(count)) = find(header, "num-sub-frames") else {
            return Err(DocumentError::OpaqueHeader { frame });
        };
        let end = usize::try_from(count).ok().and_then(|count| (start + 1).checked_add(count)).ok_or_else(error)?;
        Ok((header, self.frames.get(start + 1..end).ok_or_else(error)?))
    }
}
