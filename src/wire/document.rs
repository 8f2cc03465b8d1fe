//! The msgpack document of a message: checked as a whole once, then read where someone asks.

use std::ops::Range;

use bytes::Bytes;
use thiserror::Error;

pub use super::fields::Fields;
use super::frame::Message;
use super::limits::{ELEMENTS_MAX, TREE_ELEMENTS_MAX};
use super::msgpack::{MsgpackError, Reader, Token};
use super::value::{Value, read_tree};
use crate::dask::KeyError;

/// Why a message could not be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DocumentError {
    #[error(transparent)]
    Msgpack(#[from] MsgpackError),
    #[error("a document refers to frame {frame} of a message of {frames} frames")]
    NoSuchFrame { frame: i64, frames: usize },
    #[error("frame {frame} is no header of a value")]
    OpaqueHeader { frame: i64 },
    #[error("a document refers to the same frames more than once")]
    SharedFrames,
    #[error("a message of a stream is a {found}; expected an array of maps")]
    NotBatch { found: &'static str },
    #[error("a message is a {found}; expected a map with `op`")]
    NotMap { found: &'static str },
    #[error("a message has no `op`")]
    NoOp,
    #[error("`{op}` is no op of this stream")]
    UnknownOp { op: String },
    #[error("`{op}` has no field `{field}`")]
    MissingField { op: String, field: String },
    #[error("field `{field}` of `{op}` is a {found}; expected {expected}")]
    WrongType { op: String, field: String, expected: &'static str, found: &'static str },
    #[error("field `{field}` of `{op}` holds no task key")]
    NotKey {
        op: String,
        field: String,
        #[source]
        source: KeyError,
    },
}

/// The messages of a stream's message, checked and read in one pass.
#[derive(Clone, Debug)]
pub(super) struct Items<'m> {
    message: &'m Message,
    reader: Reader<'m>,
    items_left: usize,
    elements_left: usize,
}

/// Room that is made for items before the first is read: however many a peer announces.
const ITEMS_ROOM_MAX: usize = 1024;

impl<'m> Items<'m> {
    /// Reads all items, each as `read` will have it; `None` is no item. What is wrong with the document as a whole comes
    /// before what is wrong with one of them.
    pub(super) fn read_all<T>(
        message: &'m Message,
        read: impl Fn(&mut Self) -> Result<Option<T>, DocumentError>,
    ) -> Result<Vec<T>, DocumentError> {
        Self::try_read_all(message, read).or_else(|error| {
            Place::whole(message)?;
            Err(error)
        })
    }

    fn try_read_all<T>(
        message: &'m Message,
        read: impl Fn(&mut Self) -> Result<Option<T>, DocumentError>,
    ) -> Result<Vec<T>, DocumentError> {
        // Without further frames there is nothing to share; whoever reads a reference finds that out.
        if message.frames.len() > 1 {
            message.check_references()?;
        }
        let mut reader = Reader::new(message.document());
        let items_left = match reader.token()? {
            Token::Array(length) => length,
            other => return Err(DocumentError::NotBatch { found: other.kind() }),
        };
        let mut items = Self { message, reader, items_left, elements_left: ELEMENTS_MAX };
        let mut batch = Vec::with_capacity(items_left.min(ITEMS_ROOM_MAX));
        while items.items_left > 0 {
            batch.extend(read(&mut items)?);
            items.items_left -= 1;
        }
        items.reader.finish()?;
        Ok(batch)
    }

    /// The next item by its fields; nothing where it is a bare "OK", which means nothing.
    ///
    /// Source: distributed 2026.8.0, core.py: `Server.handle_stream`.
    pub(super) fn fields(&mut self) -> Result<Option<Fields<'m>>, DocumentError> {
        let mut ahead = self.reader;
        if ahead.token()? == Token::Text("OK") {
            self.reader = ahead;
            return Ok(None);
        }
        Fields::next(self.message, &mut self.reader, &mut self.elements_left).map(Some)
    }

    /// The next item, if `read` can read it; where it cannot, nothing is passed over.
    pub(super) fn try_next<T>(&mut self, read: impl Fn(&'m Bytes, &mut Reader<'m>, &mut usize) -> Option<T>) -> Option<T> {
        let (mut reader, mut elements_left) = (self.reader, self.elements_left);
        let item = read(self.message.document(), &mut reader, &mut elements_left)?;
        (self.reader, self.elements_left) = (reader, elements_left);
        Some(item)
    }
}

/// A value somewhere in a message.
#[derive(Clone, Debug)]
pub(super) struct Place<'m> {
    pub(super) message: &'m Message,
    pub(super) range: Range<usize>,
}

impl<'m> Place<'m> {
    /// All of a message, checked.
    pub(super) fn whole(message: &'m Message) -> Result<Self, DocumentError> {
        let mut reader = Reader::new(message.document());
        let range = skip(&mut reader, &mut ELEMENTS_MAX.clone())?;
        reader.finish()?;
        message.check_references()?;
        Ok(Self { message, range })
    }

    pub(super) fn reader(&self) -> Reader<'m> {
        Reader::new(&self.message.document()[self.range.clone()])
    }

    /// The value as a tree.
    pub(super) fn value(&self) -> Result<Value, DocumentError> {
        read_tree(self.message, &mut self.reader(), &mut TREE_ELEMENTS_MAX.clone())
    }

    /// The messages of a stream.
    pub(super) fn batch(&self) -> Result<Vec<Self>, DocumentError> {
        let mut reader = self.reader();
        let length = match reader.token()? {
            Token::Array(length) => length,
            other => return Err(DocumentError::NotBatch { found: other.kind() }),
        };
        let mut items = Vec::with_capacity(reader.capacity(length));
        for _ in 0..length {
            items.push(self.inner(&mut reader)?);
        }
        Ok(items)
    }

    /// The next value of a reader of this place.
    pub(super) fn inner(&self, reader: &mut Reader<'_>) -> Result<Self, DocumentError> {
        let range = skip(reader, &mut ELEMENTS_MAX.clone())?;
        Ok(Self { message: self.message, range: self.range.start + range.start..self.range.start + range.end })
    }
}

/// Passes over a value and says where it lies for this reader.
pub(super) fn skip(reader: &mut Reader<'_>, elements_left: &mut usize) -> Result<Range<usize>, DocumentError> {
    reader.skip(elements_left).map_err(|error| match error {
        MsgpackError::TooManyElements { .. } => MsgpackError::TooManyElements { max: ELEMENTS_MAX }.into(),
        other => other.into(),
    })
}
