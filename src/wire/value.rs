//! Any value of a Dask message, as a tree.
//!
//! For what has no type of its own: answers, metadata, the values of Variables and Queues. What stands in other frames
//! is resolved while reading and numbered anew while writing, so a value can move from one message to another.

use std::fmt;

use bytes::Bytes;

use super::document::{DocumentError, Place};
use super::encode::Encoder;
use super::frame::Message;
use super::limits::TREE_ELEMENTS_MAX;
use super::msgpack::{MsgpackError, Reader, Token};
use super::opaque::{Pickled, kept};
use crate::dask::{Serialized, TaskKey};

/// A value. Keys of maps may be anything, as in Python.
///
/// Integers above `i64::MAX` are `Unsigned`, all others `Integer`; a 32-bit float is read as a 64-bit one.
#[derive(Clone, PartialEq)]
pub enum Value {
    Nil,
    Boolean(bool),
    Integer(i64),
    Unsigned(u64),
    Float(f64),
    Text(String),
    Binary(Bytes),
    /// A list or a tuple: Python's side always reads a tuple.
    Array(Vec<Value>),
    Map(Vec<(Value, Value)>),
    /// A Python set: `{"__Set__": true, "as-list": […]}`.
    Set(Vec<Value>),
    /// `{"__Serialized__": frame}`.
    Serialized(Box<Serialized>),
    /// `{"__Pickled__": frame}`.
    Pickled(Box<Pickled>),
}

impl Value {
    /// Reads a whole message.
    ///
    /// # Errors
    /// When the message breaks a limit or refers to frames that it does not have.
    pub fn decode(message: &Message) -> Result<Self, DocumentError> {
        Place::whole(message)?.value()
    }

    /// The chunks of a message of this value alone.
    pub fn encode(&self) -> Vec<Bytes> {
        let mut encoder = Encoder::new();
        encoder.value(self);
        encoder.finish()
    }

    /// Reads one document that stands alone, outside of any message.
    ///
    /// # Errors
    /// When it breaks a limit, or refers to frames.
    pub fn from_msgpack(document: &Bytes) -> Result<Self, DocumentError> {
        Self::decode(&Message { frames: vec![document.clone()] })
    }

    /// The value as one document that stands alone; what belongs into other frames is lost.
    pub fn to_msgpack(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.value(self);
        encoder.into_document()
    }

    /// A map whose keys are texts.
    pub fn map<const LENGTH: usize>(entries: [(&str, Self); LENGTH]) -> Self {
        Self::Map(entries.into_iter().map(|(name, value)| (Self::from(name), value)).collect())
    }

    /// What a map has under a text.
    pub fn get(&self, name: &str) -> Option<&Self> {
        let Self::Map(entries) = self else { return None };
        entries.iter().find(|(key, _)| matches!(key, Self::Text(text) if text == name)).map(|(_, value)| value)
    }

    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub fn as_integer(&self) -> Option<i64> {
        if let Self::Integer(integer) = self { Some(*integer) } else { None }
    }

    /// A number, whole or not.
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Self::Integer(integer) => Some(*integer as f64),
            Self::Unsigned(integer) => Some(*integer as f64),
            Self::Float(float) => Some(*float),
            _ => None,
        }
    }

    pub fn as_boolean(&self) -> Option<bool> {
        if let Self::Boolean(boolean) = self { Some(*boolean) } else { None }
    }

    /// The elements of an array or a set.
    pub fn as_elements(&self) -> Option<&[Self]> {
        match self {
            Self::Array(elements) | Self::Set(elements) => Some(elements),
            _ => None,
        }
    }

    pub fn as_map(&self) -> Option<&[(Self, Self)]> {
        if let Self::Map(entries) = self { Some(entries) } else { None }
    }

    pub fn is_nil(&self) -> bool {
        matches!(self, Self::Nil)
    }

    /// The value as a task key, if it can be one.
    pub fn as_key(&self) -> Option<TaskKey> {
        let mut encoder = Encoder::new();
        encoder.value(self);
        TaskKey::from_msgpack(encoder.into_document()).ok()
    }

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
            Self::Set(_) => "set",
            Self::Serialized(_) => "serialized value",
            Self::Pickled(_) => "pickled value",
        }
    }
}

/// Reads the tree at `reader`. The document was passed over before: its depth is within limits.
pub(super) fn read_tree(message: &Message, reader: &mut Reader<'_>, elements_left: &mut usize) -> Result<Value, DocumentError> {
    *elements_left = elements_left.checked_sub(1).ok_or(MsgpackError::TooManyElements { max: TREE_ELEMENTS_MAX })?;
    Ok(match reader.token()? {
        Token::Nil => Value::Nil,
        Token::Boolean(boolean) => Value::Boolean(boolean),
        Token::Integer(integer) => Value::Integer(integer),
        Token::Unsigned(integer) => Value::Unsigned(integer),
        Token::Float(float) => Value::Float(float),
        Token::Text(text) => Value::Text(text.to_owned()),
        Token::Binary(binary) => Value::Binary(kept(&message.document().slice_ref(binary))),
        Token::Array(length) => {
            let mut elements = Vec::with_capacity(reader.capacity(length).min(*elements_left));
            for _ in 0..length {
                elements.push(read_tree(message, reader, elements_left)?);
            }
            Value::Array(elements)
        }
        Token::Map(length) => {
            let mut entries = Vec::with_capacity(reader.capacity(length).min(*elements_left));
            for _ in 0..length {
                let key = read_tree(message, reader, elements_left)?;
                entries.push((key, read_tree(message, reader, elements_left)?));
            }
            resolve(message, entries)?
        }
    })
}

/// Makes of a marker map what it stands for.
///
/// Source: distributed 2026.8.0, protocol/core.py: `loads`; protocol/utils_test and core: `_decode_default`.
fn resolve(message: &Message, mut entries: Vec<(Value, Value)>) -> Result<Value, DocumentError> {
    match &mut entries[..] {
        [(Value::Text(name), Value::Integer(frame))] if *frame > 0 => match name.as_str() {
            "__Serialized__" => return Ok(Value::Serialized(Box::new(message.serialized(*frame)?))),
            "__Pickled__" => return Ok(Value::Pickled(Box::new(message.pickled(*frame)?))),
            _ => {}
        },
        [(Value::Text(first), Value::Boolean(true)), (Value::Text(second), Value::Array(elements))]
            if first == "__Set__" && second == "as-list" =>
        {
            return Ok(Value::Set(std::mem::take(elements)));
        }
        _ => {}
    }
    Ok(Value::Map(entries))
}

/// As Python would show it, near enough.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nil => f.write_str("nil"),
            Self::Boolean(boolean) => boolean.fmt(f),
            Self::Integer(integer) => integer.fmt(f),
            Self::Unsigned(integer) => integer.fmt(f),
            Self::Float(float) => float.fmt(f),
            Self::Text(text) => text.fmt(f),
            Self::Binary(binary) => binary.fmt(f),
            Self::Array(elements) => f.debug_list().entries(elements).finish(),
            Self::Map(entries) => f.debug_map().entries(entries.iter().map(|(key, value)| (key, value))).finish(),
            Self::Set(elements) => f.debug_set().entries(elements).finish(),
            Self::Serialized(serialized) => serialized.fmt(f),
            Self::Pickled(pickled) => pickled.fmt(f),
        }
    }
}

impl From<bool> for Value {
    fn from(boolean: bool) -> Self {
        Self::Boolean(boolean)
    }
}

impl From<i64> for Value {
    fn from(integer: i64) -> Self {
        Self::Integer(integer)
    }
}

impl From<u64> for Value {
    fn from(integer: u64) -> Self {
        i64::try_from(integer).map_or(Self::Unsigned(integer), Self::Integer)
    }
}

impl From<f64> for Value {
    fn from(float: f64) -> Self {
        Self::Float(float)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Bytes> for Value {
    fn from(binary: Bytes) -> Self {
        Self::Binary(binary)
    }
}

impl From<Serialized> for Value {
    fn from(serialized: Serialized) -> Self {
        Self::Serialized(Box::new(serialized))
    }
}

impl From<Pickled> for Value {
    fn from(pickled: Pickled) -> Self {
        Self::Pickled(Box::new(pickled))
    }
}

impl From<&TaskKey> for Value {
    fn from(key: &TaskKey) -> Self {
        let message = Message { frames: vec![Bytes::copy_from_slice(key.as_msgpack())] };
        // A key is one valid value within all limits.
        Self::decode(&message).unwrap_or(Self::Nil)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(option: Option<T>) -> Self {
        option.map_or(Self::Nil, Into::into)
    }
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(elements: Vec<T>) -> Self {
        Self::Array(elements.into_iter().map(Into::into).collect())
    }
}
