//! Reads the fields of a message by name, as what they must be.

use std::ops::Range;

use bytes::Bytes;
use smallvec::SmallVec;

use super::document::{DocumentError, Place, skip};
use super::encode::Encoder;
use super::encoded_keys::EncodedKeys;
use super::frame::Message;
use super::limits::ELEMENTS_MAX;
use super::msgpack::{Reader, Token};
use super::opaque::{Pickled, kept};
use super::value::Value;
use crate::dask::{ClientName, Serialized, TaskKey, WorkerAddress};

/// Where the fields of a map are: the texts of the names, and the values.
pub(super) type Entries = SmallVec<[(Range<usize>, Range<usize>); 16]>;

/// The fields of one message or of one map in it.
#[derive(Clone, Debug)]
pub struct Fields<'m> {
    message: &'m Message,
    entries: Entries,
    op: &'m str,
}

impl<'m> Fields<'m> {
    /// Of the message that a reader of the whole document comes to.
    pub(super) fn next(message: &'m Message, reader: &mut Reader<'m>, elements_left: &mut usize) -> Result<Self, DocumentError> {
        let entries = read_entries(reader, 0, elements_left)?;
        let mut fields = Self { message, entries, op: "" };
        fields.op = fields.text("op").map_err(|_| DocumentError::NoOp)?;
        Ok(fields)
    }

    /// Of a message that is one map. What is wrong with the document as a whole comes before what is wrong with the map.
    pub(super) fn whole(message: &'m Message) -> Result<Self, DocumentError> {
        Self::try_whole(message).or_else(|error| {
            Place::whole(message)?;
            Err(error)
        })
    }

    fn try_whole(message: &'m Message) -> Result<Self, DocumentError> {
        message.check_references()?;
        let mut reader = Reader::new(message.document());
        let fields = Self::next(message, &mut reader, &mut ELEMENTS_MAX.clone())?;
        reader.finish()?;
        Ok(fields)
    }

    /// Of a map that is no message; `op` is the message it stands in.
    fn nested(place: &Place<'m>, op: &'m str) -> Result<Self, DocumentError> {
        let entries = read_entries(&mut place.reader(), place.range.start, &mut ELEMENTS_MAX.clone())?;
        Ok(Self { message: place.message, entries, op })
    }

    /// Of a map whose entries were found before.
    pub(super) fn of(message: &'m Message, entries: Entries, op: &'m str) -> Self {
        Self { message, entries, op }
    }

    pub(super) fn entries(&self) -> &Entries {
        &self.entries
    }

    pub fn op(&self) -> &'m str {
        self.op
    }

    /// Whether the field is there and not nil.
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Any field, as a tree.
    ///
    /// # Errors
    /// When the field is missing.
    pub fn value(&self, name: &str) -> Result<Value, DocumentError> {
        self.find_even_nil(name).ok_or_else(|| self.missing(name))?.value()
    }

    /// A field that may be missing, as a tree; then nil.
    ///
    /// # Errors
    /// When the field refers to frames that are not there, or is too large for a tree.
    pub fn optional_value(&self, name: &str) -> Result<Value, DocumentError> {
        self.find(name).map_or(Ok(Value::Nil), |place| place.value())
    }

    /// All fields but those of these names, as a map.
    ///
    /// # Errors
    /// When one refers to frames that are not there, or is too large for a tree.
    pub fn others(&self, names: &[&str]) -> Result<Value, DocumentError> {
        let document = self.message.document();
        let texts = self.entries.iter().filter_map(|(name, _)| std::str::from_utf8(&document[name.clone()]).ok());
        let others = texts.filter(|name| !name.is_empty() && !names.contains(name));
        Ok(Value::Map(others.map(|name| Ok((name.into(), self.value(name)?))).collect::<Result<_, DocumentError>>()?))
    }

    /// Any field as a document of its own, copied; nil when it is missing.
    pub fn document(&self, name: &str) -> Bytes {
        let found = self.find(name).map(|place| Bytes::copy_from_slice(&self.message.document()[place.range]));
        found.unwrap_or(Bytes::from_static(b"\xc0"))
    }

    /// # Errors
    /// As all readers of one type: when the field is missing or is something else.
    pub fn text(&self, name: &str) -> Result<&'m str, DocumentError> {
        self.optional_text(name)?.ok_or_else(|| self.missing(name))
    }

    /// # Errors
    /// When the field is something else than a text or nil.
    pub fn optional_text(&self, name: &str) -> Result<Option<&'m str>, DocumentError> {
        match self.token(name)? {
            Token::Nil => Ok(None),
            Token::Text(text) => Ok(Some(text)),
            other => Err(self.wrong(name, "text", &other)),
        }
    }

    /// # Errors
    /// When the field is missing or no boolean.
    pub fn boolean(&self, name: &str) -> Result<bool, DocumentError> {
        self.optional_boolean(name)?.ok_or_else(|| self.missing(name))
    }

    /// # Errors
    /// When the field is something else than a boolean or nil.
    pub fn optional_boolean(&self, name: &str) -> Result<Option<bool>, DocumentError> {
        match self.token(name)? {
            Token::Nil => Ok(None),
            Token::Boolean(boolean) => Ok(Some(boolean)),
            other => Err(self.wrong(name, "a boolean", &other)),
        }
    }

    /// # Errors
    /// When the field is missing or no integer from 0 on.
    pub fn unsigned(&self, name: &str) -> Result<u64, DocumentError> {
        self.optional_unsigned(name)?.ok_or_else(|| self.missing(name))
    }

    /// # Errors
    /// When the field is something else than an integer from 0 on, or nil.
    pub fn optional_unsigned(&self, name: &str) -> Result<Option<u64>, DocumentError> {
        match self.token(name)? {
            Token::Nil => Ok(None),
            Token::Integer(integer) if integer >= 0 => Ok(Some(integer.unsigned_abs())),
            Token::Unsigned(integer) => Ok(Some(integer)),
            // Sizes are whole numbers even where Python made floats of them.
            Token::Float(float) if float >= 0.0 && float.fract() == 0.0 => Ok(Some(float as u64)),
            other => Err(self.wrong(name, "an integer from 0 on", &other)),
        }
    }

    /// # Errors
    /// When the field is missing or no integer.
    pub fn integer(&self, name: &str) -> Result<i64, DocumentError> {
        match self.token(name)? {
            Token::Nil => Err(self.missing(name)),
            Token::Integer(integer) => Ok(integer),
            other => Err(self.wrong(name, "an integer", &other)),
        }
    }

    /// # Errors
    /// When the field is missing or no number.
    pub fn number(&self, name: &str) -> Result<f64, DocumentError> {
        self.optional_number(name)?.ok_or_else(|| self.missing(name))
    }

    /// # Errors
    /// When the field is something else than a number or nil.
    pub fn optional_number(&self, name: &str) -> Result<Option<f64>, DocumentError> {
        match self.token(name)? {
            Token::Nil => Ok(None),
            Token::Integer(integer) => Ok(Some(integer as f64)),
            Token::Unsigned(integer) => Ok(Some(integer as f64)),
            Token::Float(float) => Ok(Some(float)),
            other => Err(self.wrong(name, "a number", &other)),
        }
    }

    /// # Errors
    /// When the field is missing or no binary.
    pub fn binary(&self, name: &str) -> Result<Bytes, DocumentError> {
        match self.token(name)? {
            Token::Nil => Err(self.missing(name)),
            Token::Binary(binary) => Ok(kept(&self.message.document().slice_ref(binary))),
            other => Err(self.wrong(name, "binary", &other)),
        }
    }

    /// # Errors
    /// When the field is missing or no task key.
    pub fn key(&self, name: &str) -> Result<TaskKey, DocumentError> {
        self.optional_key(name)?.ok_or_else(|| self.missing(name))
    }

    /// # Errors
    /// When the field is something else than a task key or nil.
    pub fn optional_key(&self, name: &str) -> Result<Option<TaskKey>, DocumentError> {
        let Some(place) = self.find(name) else { return Ok(None) };
        self.read_key(name, &mut place.reader()).map(Some)
    }

    /// An array, or a set, of task keys.
    ///
    /// # Errors
    /// When the field is missing or something else.
    pub fn keys(&self, name: &str) -> Result<Vec<TaskKey>, DocumentError> {
        self.optional_keys(name)?.ok_or_else(|| self.missing(name))
    }

    /// # Errors
    /// When the field is something else than task keys or nil.
    pub fn optional_keys(&self, name: &str) -> Result<Option<Vec<TaskKey>>, DocumentError> {
        self.elements(name, |fields, reader| fields.read_key(name, reader))
    }

    /// The same keys, but sharing the memory of the message: for those that are looked up and not kept.
    ///
    /// # Errors
    /// When the field is missing or something else.
    pub fn shared_keys(&self, name: &str) -> Result<Vec<TaskKey>, DocumentError> {
        let keys = self.elements(name, |fields, reader| {
            let mut ahead = *reader;
            let Some(key) = shared_key(fields.message.document(), &mut ahead) else { return fields.read_key(name, reader) };
            *reader = ahead;
            Ok(key)
        })?;
        keys.ok_or_else(|| self.missing(name))
    }

    /// Keys that are passed on as they came; they share the memory of the message.
    ///
    /// # Errors
    /// When the field is missing or no array.
    pub fn encoded_keys(&self, name: &str) -> Result<EncodedKeys, DocumentError> {
        let place = self.find(name).ok_or_else(|| self.missing(name))?;
        let mut reader = place.reader();
        let mut start = 0;
        match reader.token()? {
            Token::Array(_) => {}
            Token::Map(2) => {
                let mut ahead = reader;
                self.set(name, &mut ahead)?;
                for _ in 0..3 {
                    reader.token()?;
                }
                start = reader.position();
            }
            other => return Err(self.wrong(name, "an array", &other)),
        }
        Ok(EncodedKeys::new(kept(&self.message.document().slice(place.range.start + start..place.range.end))))
    }

    /// # Errors
    /// When the field is missing or no array of texts.
    pub fn texts(&self, name: &str) -> Result<Vec<String>, DocumentError> {
        self.optional_texts(name)?.ok_or_else(|| self.missing(name))
    }

    /// # Errors
    /// When the field is something else than texts or nil.
    pub fn optional_texts(&self, name: &str) -> Result<Option<Vec<String>>, DocumentError> {
        self.elements(name, |fields, reader| match reader.token()? {
            Token::Text(text) => Ok(text.to_owned()),
            other => Err(fields.wrong(name, "an array of texts", &other)),
        })
    }

    /// # Errors
    /// When the field is missing or no worker's address.
    pub fn address(&self, name: &str) -> Result<WorkerAddress, DocumentError> {
        self.text(name).map(WorkerAddress::new)
    }

    /// # Errors
    /// When the field is missing or no Client's name.
    pub fn client(&self, name: &str) -> Result<ClientName, DocumentError> {
        self.text(name).map(ClientName::new)
    }

    /// # Errors
    /// When the field is missing or no value in frames of its own.
    pub fn serialized(&self, name: &str) -> Result<Serialized, DocumentError> {
        self.optional_serialized(name)?.ok_or_else(|| self.missing(name))
    }

    /// # Errors
    /// When the field is something else than a value in frames of its own, or nil.
    pub fn optional_serialized(&self, name: &str) -> Result<Option<Serialized>, DocumentError> {
        match self.optional_value(name)? {
            Value::Nil => Ok(None),
            Value::Serialized(serialized) => Ok(Some(*serialized)),
            other => Err(self.wrong_kind(name, "a serialized value", other.kind())),
        }
    }

    /// # Errors
    /// When the field is missing or no value that is to be unpickled.
    pub fn pickled(&self, name: &str) -> Result<Pickled, DocumentError> {
        match self.optional_value(name)? {
            Value::Nil => Err(self.missing(name)),
            Value::Pickled(pickled) => Ok(*pickled),
            other => Err(self.wrong_kind(name, "a pickled value", other.kind())),
        }
    }

    /// The fields of a map in this one.
    ///
    /// # Errors
    /// When the field is missing or no map.
    pub fn fields(&self, name: &str) -> Result<Self, DocumentError> {
        let place = self.find(name).ok_or_else(|| self.missing(name))?;
        self.inner_fields(name, &place)
    }

    /// The fields of each map of an array in this one.
    ///
    /// # Errors
    /// When the field is missing or no array of maps.
    pub fn array_of_fields(&self, name: &str) -> Result<Vec<Self>, DocumentError> {
        let place = self.find(name).ok_or_else(|| self.missing(name))?;
        let items = place.batch().map_err(|_| self.wrong_kind(name, "an array of maps", "different value"))?;
        items.iter().map(|item| self.inner_fields(name, item)).collect()
    }

    /// A map from task keys, each value read by `read`.
    ///
    /// # Errors
    /// When the field is missing or no such map.
    pub fn by_key(&self, name: &str) -> Result<Vec<(TaskKey, Value)>, DocumentError> {
        let place = self.find(name).ok_or_else(|| self.missing(name))?;
        let mut reader = place.reader();
        let length = reader.map().map_err(|_| self.wrong_kind(name, "a map by task key", "different value"))?;
        let mut entries = Vec::with_capacity(reader.capacity(length));
        for _ in 0..length {
            let key = self.read_key(name, &mut reader)?;
            entries.push((key, place.inner(&mut reader)?.value()?));
        }
        Ok(entries)
    }

    /// A map of names to numbers; empty when it is missing.
    ///
    /// # Errors
    /// When the field is something else.
    pub fn numbers_by_name(&self, name: &str) -> Result<Vec<(String, f64)>, DocumentError> {
        let value = self.optional_value(name)?;
        let expected = "a map of names to numbers";
        let entries = match &value {
            Value::Nil => &[],
            other => other.as_map().ok_or_else(|| self.wrong_kind(name, expected, other.kind()))?,
        };
        let number = |(key, amount): &(Value, Value)| {
            let key = key.as_text().ok_or_else(|| self.wrong_kind(name, expected, key.kind()))?;
            let number = amount.as_number().ok_or_else(|| self.wrong_kind(name, expected, amount.kind()))?;
            Ok((key.to_owned(), number))
        };
        entries.iter().map(number).collect()
    }

    /// The topics of an event: a text or several.
    ///
    /// # Errors
    /// When the field is missing or something else.
    pub fn topics(&self) -> Result<Vec<String>, DocumentError> {
        match self.token("topic")? {
            Token::Text(topic) => Ok(vec![topic.to_owned()]),
            _ => self.texts("topic"),
        }
    }

    fn inner_fields(&self, name: &str, place: &Place<'m>) -> Result<Self, DocumentError> {
        Self::nested(place, self.op).map_err(|error| match error {
            DocumentError::NotMap { found } => self.wrong_kind(name, "a map", found),
            other => other,
        })
    }

    fn elements<T>(
        &self,
        name: &str,
        read: impl Fn(&Self, &mut Reader<'m>) -> Result<T, DocumentError>,
    ) -> Result<Option<Vec<T>>, DocumentError> {
        let Some(place) = self.find(name) else { return Ok(None) };
        let mut reader = place.reader();
        let length = match reader.token()? {
            Token::Array(length) => length,
            Token::Map(2) => self.set(name, &mut reader)?,
            other => return Err(self.wrong(name, "an array", &other)),
        };
        let mut elements = Vec::with_capacity(reader.capacity(length));
        for _ in 0..length {
            elements.push(read(self, &mut reader)?);
        }
        Ok(Some(elements))
    }

    /// Reads `"__Set__": true, "as-list":` and the head of the array.
    fn set(&self, name: &str, reader: &mut Reader<'m>) -> Result<usize, DocumentError> {
        let head = [reader.token()?, reader.token()?, reader.token()?];
        match (head, reader.token()?) {
            ([Token::Text("__Set__"), Token::Boolean(true), Token::Text("as-list")], Token::Array(length)) => Ok(length),
            _ => Err(self.wrong_kind(name, "an array", "map")),
        }
    }

    fn read_key(&self, name: &str, reader: &mut Reader<'m>) -> Result<TaskKey, DocumentError> {
        TaskKey::from_msgpack(canonical(reader)?).map_err(|source| DocumentError::NotKey {
            op: self.op.to_owned(),
            field: name.to_owned(),
            source,
        })
    }

    fn token(&self, name: &str) -> Result<Token<'m>, DocumentError> {
        self.find(name).map_or(Ok(Token::Nil), |place| Ok(place.reader().token()?))
    }

    fn find(&self, name: &str) -> Option<Place<'m>> {
        self.find_even_nil(name).filter(|place| !matches!(place.reader().token(), Ok(Token::Nil)))
    }

    fn find_even_nil(&self, name: &str) -> Option<Place<'m>> {
        let document = self.message.document();
        // A name that is there twice counts as Python counts it: the last one.
        let (_, range) = self.entries.iter().rev().find(|(found, _)| document[found.clone()] == *name.as_bytes())?;
        Some(Place { message: self.message, range: range.clone() })
    }

    fn missing(&self, name: &str) -> DocumentError {
        DocumentError::MissingField { op: self.op.to_owned(), field: name.to_owned() }
    }

    fn wrong(&self, name: &str, expected: &'static str, found: &Token<'_>) -> DocumentError {
        self.wrong_kind(name, expected, found.kind())
    }

    /// The error of a field that is something else than it must be.
    pub fn wrong_kind(&self, name: &str, expected: &'static str, found: &'static str) -> DocumentError {
        DocumentError::WrongType { op: self.op.to_owned(), field: name.to_owned(), expected, found }
    }
}

/// Finds the names and values of the map at a reader that begins `offset` bytes into the document.
fn read_entries(reader: &mut Reader<'_>, offset: usize, elements_left: &mut usize) -> Result<Entries, DocumentError> {
    let length = match reader.token()? {
        Token::Map(length) => length,
        other => return Err(DocumentError::NotMap { found: other.kind() }),
    };
    let mut entries = Entries::with_capacity(reader.capacity(length).min(16));
    for _ in 0..length {
        let name = read_name(reader, elements_left)?;
        let value = skip(reader, elements_left)?;
        entries.push((name.start + offset..name.end + offset, value.start + offset..value.end + offset));
    }
    Ok(entries)
}

/// Where the text of the next name lies; nowhere if the name is no text, since no field has such a name.
fn read_name(reader: &mut Reader<'_>, elements_left: &mut usize) -> Result<Range<usize>, DocumentError> {
    let mut ahead = *reader;
    let Token::Text(text) = ahead.token()? else {
        let end = skip(reader, elements_left)?.end;
        return Ok(end..end);
    };
    *reader = ahead;
    Ok(reader.position() - text.len()..reader.position())
}

/// Copies the value at the reader, so that a key does not keep its message in memory; in the smallest encoding, whatever
/// the peer chose. The document's depth was checked before.
fn canonical(reader: &mut Reader<'_>) -> Result<Bytes, DocumentError> {
    let start = *reader;
    if pass_smallest(reader)? {
        return Ok(Bytes::copy_from_slice(start.until(reader)));
    }
    *reader = start;
    let mut encoder = Encoder::new();
    copy(reader, &mut encoder)?;
    Ok(encoder.into_document().into())
}

/// The key at a reader, sharing the memory of its document; nothing where the peer chose a longer encoding, or no key.
pub(super) fn shared_key(document: &Bytes, reader: &mut Reader<'_>) -> Option<TaskKey> {
    if let Some(key) = TaskKey::plain(document, reader.rest()) {
        reader.pass(key.as_msgpack().len());
        return Some(key);
    }
    let start = *reader;
    // What is nil is as good as not there.
    if start.clone().token() == Ok(Token::Nil) {
        return None;
    }
    if pass_smallest(reader).ok()? { TaskKey::from_msgpack(document.slice_ref(start.until(reader))).ok() } else { None }
}

/// Passes over a value; whether all of it had its smallest encoding, as Python writes it. Stops where it had not.
fn pass_smallest(reader: &mut Reader<'_>) -> Result<bool, DocumentError> {
    let start = reader.position();
    let token = reader.token()?;
    if reader.position() - start != token.smallest_length() {
        return Ok(false);
    }
    if let Token::Array(length) = token {
        for _ in 0..length {
            if !pass_smallest(reader)? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

fn copy(reader: &mut Reader<'_>, encoder: &mut Encoder) -> Result<(), DocumentError> {
    match reader.token()? {
        Token::Nil => encoder.nil(),
        Token::Boolean(boolean) => encoder.boolean(boolean),
        Token::Integer(integer) => encoder.integer(integer),
        Token::Unsigned(integer) => encoder.unsigned(integer),
        Token::Float(float) => encoder.float(float),
        Token::Text(text) => encoder.text(text),
        Token::Binary(binary) => encoder.binary(binary),
        Token::Array(length) => {
            encoder.array(length);
            for _ in 0..length {
                copy(reader, encoder)?;
            }
        }
        // Refused as a key afterwards.
        Token::Map(length) => encoder.map(length),
    }
    Ok(())
}
