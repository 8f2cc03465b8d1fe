//! The msgpack document of a message: checked as a whole once, then read where someone asks.

use std::ops::Range;

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
        let range = skip(&mut reader)?;
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

    pub(super) fn is_text(&self, text: &str) -> bool {
        matches!(self.reader().token(), Ok(Token::Text(found)) if found == text)
    }

    /// Where the text of the next name lies; nowhere if the name is no text, since no field has such a name.
    pub(super) fn name(&self, reader: &mut Reader<'_>) -> Result<Range<usize>, DocumentError> {
        let start = *reader;
        let length = if let Token::Text(text) = reader.token()? {
            text.len()
        } else {
            *reader = start;
            skip(reader)?;
            0
        };
        let end = self.range.start + reader.position();
        Ok(end - length..end)
    }

    /// The next value of a reader of this place.
    pub(super) fn inner(&self, reader: &mut Reader<'_>) -> Result<Self, DocumentError> {
        let range = skip(reader)?;
        Ok(Self { message: self.message, range: self.range.start + range.start..self.range.start + range.end })
    }
}

fn skip(reader: &mut Reader<'_>) -> Result<Range<usize>, DocumentError> {
    reader.skip(&mut ELEMENTS_MAX.clone()).map_err(|error| match error {
        MsgpackError::TooManyElements { .. } => MsgpackError::TooManyElements { max: ELEMENTS_MAX }.into(),
        other => other.into(),
    })
}
