//! Reads msgpack piece by piece, without building anything.
//!
//! Integers, floats, strings, binaries, arrays, maps, booleans and nil; Dask uses no extension types, so they are refused.

use std::ops::Range;

use rmp::Marker;
use smallvec::{SmallVec, smallvec};
use thiserror::Error;

use super::limits::DEPTH_MAX;

/// Why bytes are no document.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MsgpackError {
    #[error("a document ends in the middle of a value")]
    Truncated,
    #[error("a document is followed by {found} more bytes")]
    Trailing { found: usize },
    #[error("a document nests deeper than {DEPTH_MAX}")]
    TooDeep,
    #[error("a document has more than {max} elements")]
    TooManyElements { max: usize },
    #[error("a document holds a msgpack extension, which Dask does not use")]
    Extension,
    #[error("a document holds text that is not UTF-8")]
    NotText,
    #[error("a document holds a {found} where a {expected} belongs")]
    Unexpected { expected: &'static str, found: &'static str },
}

/// One piece of a document. Of arrays and maps only the head: their elements follow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Token<'a> {
    Nil,
    Boolean(bool),
    Integer(i64),
    /// Above `i64::MAX`.
    Unsigned(u64),
    Float(f64),
    Text(&'a str),
    /// Where it lies in the document, so that it can be sliced out without a copy.
    Binary(&'a [u8]),
    Array(usize),
    Map(usize),
}

impl Token<'_> {
    /// The kind's name, for error texts.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Boolean(_) => "boolean",
            Self::Integer(_) | Self::Unsigned(_) => "integer",
            Self::Float(_) => "float",
            Self::Text(_) => "text",
            Self::Binary(_) => "binary",
            Self::Array(_) => "array",
            Self::Map(_) => "map",
        }
    }

    /// How many bytes the piece takes in the smallest encoding, which Python's msgpack always writes.
    pub const fn smallest_length(&self) -> usize {
        match *self {
            Self::Nil | Self::Boolean(_) => 1,
            Self::Integer(-32..=127) => 1,
            Self::Integer(-128..=255) => 2,
            Self::Integer(-32_768..=65_535) => 3,
            Self::Integer(-2_147_483_648..=4_294_967_295) => 5,
            Self::Integer(_) | Self::Unsigned(_) | Self::Float(_) => 9,
            Self::Text(text) => text.len() + if text.len() < 32 { 1 } else { long_head(text.len()) },
            Self::Binary(binary) => binary.len() + long_head(binary.len()),
            Self::Array(length) | Self::Map(length) => match length {
                0..16 => 1,
                16..65_536 => 3,
                _ => 5,
            },
        }
    }
}

/// The head of a text or binary that is too long for a head of one byte.
const fn long_head(length: usize) -> usize {
    match length {
        0..256 => 2,
        256..65_536 => 3,
        _ => 5,
    }
}

/// A place in a document.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    document: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub const fn new(document: &'a [u8]) -> Self {
        Self { document, at: 0 }
    }

    /// How many bytes were read.
    pub const fn position(&self) -> usize {
        self.at
    }

    /// The bytes from here to where `end` has read of the same document.
    pub fn until(&self, end: &Self) -> &'a [u8] {
        self.document.get(self.at..end.at).unwrap_or_default()
    }

    /// The bytes that are left.
    pub fn rest(&self) -> &'a [u8] {
        &self.document[self.at..]
    }

    /// Passes over so many bytes of those that are left, which the caller has read.
    pub fn pass(&mut self, count: usize) {
        self.at += count.min(self.remaining());
    }

    /// How many bytes are left.
    pub const fn remaining(&self) -> usize {
        self.document.len() - self.at
    }

    /// How many elements to make room for when `announced` are said to follow: each takes a byte at least.
    pub fn capacity(&self, announced: usize) -> usize {
        announced.min(self.remaining())
    }

    /// Fails unless all was read.
    ///
    /// # Errors
    /// When bytes are left.
    pub const fn finish(&self) -> Result<(), MsgpackError> {
        if self.remaining() == 0 { Ok(()) } else { Err(MsgpackError::Trailing { found: self.remaining() }) }
    }

    /// Reads one piece.
    ///
    /// # Errors
    /// When the bytes are no such piece.
    pub fn token(&mut self) -> Result<Token<'a>, MsgpackError> {
        let marker = Marker::from_u8(self.fixed::<1>()?[0]);
        Ok(match marker {
            Marker::FixPos(value) => Token::Integer(i64::from(value)),
            Marker::FixNeg(value) => Token::Integer(i64::from(value)),
            Marker::U8 => Token::Integer(i64::from(u8::from_be_bytes(self.fixed()?))),
            Marker::U16 => Token::Integer(i64::from(u16::from_be_bytes(self.fixed()?))),
            Marker::U32 => Token::Integer(i64::from(u32::from_be_bytes(self.fixed()?))),
            Marker::U64 => {
                let value = u64::from_be_bytes(self.fixed()?);
                i64::try_from(value).map_or(Token::Unsigned(value), Token::Integer)
            }
            Marker::I8 => Token::Integer(i64::from(i8::from_be_bytes(self.fixed()?))),
            Marker::I16 => Token::Integer(i64::from(i16::from_be_bytes(self.fixed()?))),
            Marker::I32 => Token::Integer(i64::from(i32::from_be_bytes(self.fixed()?))),
            Marker::I64 => Token::Integer(i64::from_be_bytes(self.fixed()?)),
            Marker::F32 => Token::Float(f64::from(f32::from_be_bytes(self.fixed()?))),
            Marker::F64 => Token::Float(f64::from_be_bytes(self.fixed()?)),
            Marker::Null => Token::Nil,
            Marker::True => Token::Boolean(true),
            Marker::False => Token::Boolean(false),
            Marker::FixStr(length) => self.text(usize::from(length))?,
            Marker::Str8 | Marker::Str16 | Marker::Str32 => {
                let length = self.length(marker)?;
                self.text(length)?
            }
            Marker::Bin8 | Marker::Bin16 | Marker::Bin32 => {
                let length = self.length(marker)?;
                Token::Binary(self.bytes(length)?)
            }
            Marker::FixArray(length) => Token::Array(usize::from(length)),
            Marker::Array16 | Marker::Array32 => Token::Array(self.length(marker)?),
            Marker::FixMap(length) => Token::Map(usize::from(length)),
            Marker::Map16 | Marker::Map32 => Token::Map(self.length(marker)?),
            Marker::FixExt1
            | Marker::FixExt2
            | Marker::FixExt4
            | Marker::FixExt8
            | Marker::FixExt16
            | Marker::Ext8
            | Marker::Ext16
            | Marker::Ext32
            | Marker::Reserved => return Err(MsgpackError::Extension),
        })
    }

    /// Passes over one value and says where it lies. `elements_left` goes down by the values passed.
    ///
    /// # Errors
    /// When the value is not whole, nests too deep, or has more elements than are left.
    pub fn skip(&mut self, elements_left: &mut usize) -> Result<Range<usize>, MsgpackError> {
        let start = self.at;
        let children = self.skip_head(elements_left)?;
        if children == 0 {
            return Ok(start..self.at);
        }
        // How many values are still to come at each open level.
        let mut open: SmallVec<[usize; 32]> = smallvec![children];
        while let Some(left) = open.last_mut() {
            if *left == 0 {
                open.pop();
                continue;
            }
            *left -= 1;
            let children = self.skip_head(elements_left)?;
            if children > 0 {
                if open.len() == DEPTH_MAX {
                    return Err(MsgpackError::TooDeep);
                }
                open.push(children);
            }
        }
        Ok(start..self.at)
    }

    /// Passes over one piece; gives how many values belong to it.
    fn skip_head(&mut self, elements_left: &mut usize) -> Result<usize, MsgpackError> {
        *elements_left = elements_left.checked_sub(1).ok_or(MsgpackError::TooManyElements { max: 0 })?;
        let mut ahead = *self;
        if ahead.short_ascii().is_some() {
            *self = ahead;
            return Ok(0);
        }
        Ok(match self.token()? {
            Token::Array(length) => length,
            Token::Map(length) => length.saturating_mul(2),
            Token::Nil
            | Token::Boolean(_)
            | Token::Integer(_)
            | Token::Unsigned(_)
            | Token::Float(_)
            | Token::Text(_)
            | Token::Binary(_) => 0,
        })
    }

    /// A text of less than 32 bytes, all of them ASCII, as nearly all names and many values are; what else is there is read
    /// with `token`.
    pub fn short_ascii(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.document.get(self.at)?.checked_sub(0xa0).filter(|length| *length < 32)?);
        let text = self.document.get(self.at + 1..self.at + 1 + length).filter(|text| text.is_ascii())?;
        self.at += 1 + length;
        Some(text)
    }

    /// Reads the head of an array.
    ///
    /// # Errors
    /// When something else is there.
    pub fn array(&mut self) -> Result<usize, MsgpackError> {
        match self.token()? {
            Token::Array(length) => Ok(length),
            other => Err(MsgpackError::Unexpected { expected: "array", found: other.kind() }),
        }
    }

    /// Reads the head of a map.
    ///
    /// # Errors
    /// When something else is there.
    pub fn map(&mut self) -> Result<usize, MsgpackError> {
        match self.token()? {
            Token::Map(length) => Ok(length),
            other => Err(MsgpackError::Unexpected { expected: "map", found: other.kind() }),
        }
    }

    fn text(&mut self, length: usize) -> Result<Token<'a>, MsgpackError> {
        std::str::from_utf8(self.bytes(length)?).map(Token::Text).map_err(|_| MsgpackError::NotText)
    }

    fn length(&mut self, marker: Marker) -> Result<usize, MsgpackError> {
        Ok(match marker {
            Marker::Str8 | Marker::Bin8 => usize::from(u8::from_be_bytes(self.fixed()?)),
            Marker::Str16 | Marker::Bin16 | Marker::Array16 | Marker::Map16 => usize::from(u16::from_be_bytes(self.fixed()?)),
            _ => u32::from_be_bytes(self.fixed()?) as usize,
        })
    }

    fn bytes(&mut self, length: usize) -> Result<&'a [u8], MsgpackError> {
        let end = self.at.checked_add(length).ok_or(MsgpackError::Truncated)?;
        let bytes = self.document.get(self.at..end).ok_or(MsgpackError::Truncated)?;
        self.at = end;
        Ok(bytes)
    }

    fn fixed<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], MsgpackError> {
        self.bytes(LENGTH)?.try_into().map_err(|_| MsgpackError::Truncated)
    }
}

#[cfg(test)]
mod tests {
    use super::Reader;
    use crate::wire::encode::Encoder;

    #[test]
    fn the_encoder_writes_the_smallest_encoding() {
        let mut encoder = Encoder::new();
        for power in 0..63 {
            for integer in [1_i64 << power, (1 << power) - 1, -(1 << power), -(1 << power) - 1] {
                encoder.integer(integer);
            }
        }
        encoder.unsigned(u64::MAX);
        encoder.float(1.0);
        for length in [0, 15, 16, 31, 32, 255, 256, 65_535, 65_536] {
            encoder.text(&"x".repeat(length));
            encoder.binary(&vec![0; length]);
            encoder.array(length);
            encoder.map(length);
        }
        let document = encoder.into_document();
        let mut reader = Reader::new(&document);
        while reader.remaining() > 0 {
            let start = reader.position();
            let token = reader.token().unwrap();
            assert_eq!(reader.position() - start, token.smallest_length(), "{token:?}");
        }
    }
}
