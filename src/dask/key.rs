//! The name of a Dask task.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use bytes::Bytes;
use rmp::Marker;
use rmp::decode::{self, RmpRead as _};
use thiserror::Error;

use crate::dask::plain_key;

/// Longer keys are refused: they would be held a million times.
const KEY_BYTES_MAX: usize = 4096;
/// How deep tuples may nest in a key.
const KEY_DEPTH_MAX: usize = 16;

/// A task key: a string, or a tuple of strings, numbers, bytes and tuples, exactly as Dask wrote it.
///
/// Held as its msgpack encoding, so it goes back on the wire byte for byte and `1` stays different from `1.0`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskKey(Bytes);

/// Why bytes are no task key.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum KeyError {
    #[error("a task key has {found} bytes, more than {KEY_BYTES_MAX}")]
    TooLong { found: usize },
    #[error("a task key nests tuples deeper than {KEY_DEPTH_MAX}")]
    TooDeep,
    #[error("a task key holds a msgpack {found}; only str, int, float, bool, nil, bin and arrays of these may be keys")]
    Unsupported { found: &'static str },
    #[error("a task key ends in the middle")]
    Truncated,
    #[error("a task key is followed by {found} more bytes")]
    Trailing { found: usize },
    #[error("a task key holds text that is not UTF-8")]
    NotText,
}

impl TaskKey {
    /// The key of a plain string.
    pub fn from_text(text: &str) -> Self {
        let mut buffer = Vec::with_capacity(text.len() + 5);
        // Writing to a Vec cannot fail.
        let _ = rmp::encode::write_str(&mut buffer, text);
        Self(buffer.into())
    }

    /// Takes one msgpack value that is a key and nothing else.
    ///
    /// # Errors
    /// When the value is no key, or more follows.
    pub fn from_msgpack(encoded: impl Into<Bytes>) -> Result<Self, KeyError> {
        let encoded = encoded.into();
        if encoded.len() > KEY_BYTES_MAX {
            return Err(KeyError::TooLong { found: encoded.len() });
        }
        let mut rest = &encoded[..];
        walk(&mut rest, 0, &mut Ignore)?;
        if rest.is_empty() { Ok(Self(encoded)) } else { Err(KeyError::Trailing { found: rest.len() }) }
    }

    /// Takes the key that a part of a document begins with, of which it shares the bytes; `None` unless it is one as nearly
    /// all are, in the smallest encoding.
    pub fn plain(document: &Bytes, part: &[u8]) -> Option<Self> {
        let length = plain_key::length(part).filter(|length| *length <= KEY_BYTES_MAX)?;
        Some(Self(document.slice_ref(&part[..length])))
    }

    /// Takes the key that is the msgpack value at this place, of which it shares the bytes; says where the next value begins.
    ///
    /// # Errors
    /// When the value is no key.
    pub fn at(encoded: &Bytes, start: usize) -> Result<(Self, usize), KeyError> {
        let mut rest = encoded.get(start..).ok_or(KeyError::Truncated)?;
        if let Some(key) = Self::plain(encoded, rest) {
            let end = start + key.0.len();
            return Ok((key, end));
        }
        walk(&mut rest, 0, &mut Ignore)?;
        let end = encoded.len() - rest.len();
        if end - start > KEY_BYTES_MAX {
            return Err(KeyError::TooLong { found: end - start });
        }
        Ok((Self(encoded.slice(start..end)), end))
    }

    /// The key as one msgpack value.
    pub fn as_msgpack(&self) -> &[u8] {
        &self.0
    }

    /// The text, if the key is a plain string.
    pub fn as_text(&self) -> Option<&str> {
        let mut rest = &self.0[..];
        let length = decode::read_str_len(&mut rest).ok()? as usize;
        std::str::from_utf8(rest.get(..length)?).ok()
    }

    /// The text that the key is or, as a tuple, begins with: `sum-5f2a…` of `('sum-5f2a…', 3)`.
    pub fn name(&self) -> Option<&str> {
        let mut rest = &self.0[..];
        let mut inside = rest;
        while decode::read_array_len(&mut inside).is_ok() {
            rest = inside;
        }
        let length = decode::read_str_len(&mut rest).ok()? as usize;
        std::str::from_utf8(rest.get(..length)?).ok()
    }

    /// The name that tasks of one kind share: `sum` of `('sum-5f2a…', 3)`, as `dask.utils.key_split` gives it.
    pub fn prefix(&self) -> Cow<'_, str> {
        if let Some(name) = self.name() {
            return key_split(name);
        }
        let mut first = FirstText::default();
        let mut rest = &self.0[..];
        // The encoding was checked when the key was made.
        let _ = walk(&mut rest, 0, &mut first);
        first.0.as_deref().map_or(Cow::Borrowed("Other"), |text| Cow::Owned(key_split(text).into_owned()))
    }
}

/// What `dask.utils.key_split` gives for a string.
///
/// Source: dask 2026.8.0, dask/utils.py: `key_split`.
pub fn key_split(text: &str) -> Cow<'_, str> {
    let text = text.trim_start_matches(['(', '\'', '"']);
    let mut words = text.split('-');
    let first = words.next().unwrap_or_default();
    let is_hex = |word: &str, length: usize| word.len() == length && word.bytes().all(|b| b.is_ascii_hexdigit());
    let is_name = |word: &&str| !word.is_empty() && word.chars().all(char::is_alphabetic) && !is_hex(word, 8);
    let rest = words.take_while(is_name).map(|word| 1 + word.len()).sum::<usize>();
    let whole = &text[..first.len() + rest];
    let trimmed = match first.chars().next().is_some_and(char::is_alphabetic) {
        true => first.split(',').next().unwrap_or_default().trim_matches(['(', ')', '\'', '"']),
        false => first,
    };
    let result = match trimmed.len() == first.len() {
        true => Cow::Borrowed(whole),
        false => Cow::Owned([trimmed, &whole[first.len()..]].concat()),
    };
    if is_hex(&result, 32) {
        return Cow::Borrowed("data");
    }
    if let Some(rest) = result.strip_prefix('<') {
        let name = rest.trim_matches(['<', '>']).split_whitespace().next().unwrap_or_default();
        return Cow::Owned(name.rsplit('.').next().unwrap_or_default().to_owned());
    }
    result
}

trait Visit {
    fn enter_tuple(&mut self, length: usize);
    fn leave_tuple(&mut self, length: usize);
    fn text(&mut self, text: &str);
    fn other(&mut self, shown: &dyn fmt::Display);
}

struct Ignore;

impl Visit for Ignore {
    fn enter_tuple(&mut self, _length: usize) {}
    fn leave_tuple(&mut self, _length: usize) {}
    fn text(&mut self, _text: &str) {}
    fn other(&mut self, _shown: &dyn fmt::Display) {}
}

#[derive(Default)]
struct FirstText(Option<String>);

impl Visit for FirstText {
    fn enter_tuple(&mut self, _length: usize) {}
    fn leave_tuple(&mut self, _length: usize) {}
    fn text(&mut self, text: &str) {
        self.0.get_or_insert_with(|| text.to_owned());
    }
    fn other(&mut self, _shown: &dyn fmt::Display) {}
}

/// Writes a key as Python's `repr` would, but a plain string without quotes.
#[derive(Default)]
struct Show {
    text: String,
    /// For each open tuple whether an element was written.
    open: Vec<bool>,
}

impl Show {
    fn separate(&mut self) {
        if let Some(has_elements) = self.open.last_mut() {
            if *has_elements {
                self.text.push_str(", ");
            }
            *has_elements = true;
        }
    }
}

impl Visit for Show {
    fn enter_tuple(&mut self, _length: usize) {
        self.separate();
        self.text.push('(');
        self.open.push(false);
    }

    fn leave_tuple(&mut self, length: usize) {
        self.open.pop();
        self.text.push_str(if length == 1 { ",)" } else { ")" });
    }

    fn text(&mut self, text: &str) {
        self.separate();
        if self.open.is_empty() {
            self.text.push_str(text);
        } else {
            let _ = write!(self.text, "'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"));
        }
    }

    fn other(&mut self, shown: &dyn fmt::Display) {
        self.separate();
        let _ = write!(self.text, "{shown}");
    }
}

/// Reads one key value from the front of `rest`.
fn walk(rest: &mut &[u8], depth: usize, visit: &mut impl Visit) -> Result<(), KeyError> {
    if depth > KEY_DEPTH_MAX {
        return Err(KeyError::TooDeep);
    }
    let marker = Marker::from_u8(*rest.first().ok_or(KeyError::Truncated)?);
    match marker {
        Marker::FixStr(_) | Marker::Str8 | Marker::Str16 | Marker::Str32 => {
            let length = decode::read_str_len(rest).map_err(|_| KeyError::Truncated)? as usize;
            let text = std::str::from_utf8(take(rest, length)?).map_err(|_| KeyError::NotText)?;
            visit.text(text);
        }
        Marker::Bin8 | Marker::Bin16 | Marker::Bin32 => {
            let length = decode::read_bin_len(rest).map_err(|_| KeyError::Truncated)? as usize;
            let shown = String::from_utf8_lossy(take(rest, length)?).escape_debug().to_string();
            visit.other(&format_args!("b'{shown}'"));
        }
        Marker::FixArray(_) | Marker::Array16 | Marker::Array32 => {
            let length = decode::read_array_len(rest).map_err(|_| KeyError::Truncated)? as usize;
            visit.enter_tuple(length);
            for _ in 0..length {
                walk(rest, depth + 1, visit)?;
            }
            visit.leave_tuple(length);
        }
        Marker::F32 | Marker::F64 => {
            let number = if marker == Marker::F32 {
                f64::from(decode::read_f32(rest).map_err(|_| KeyError::Truncated)?)
            } else {
                decode::read_f64(rest).map_err(|_| KeyError::Truncated)?
            };
            visit.other(&format_args!("{number:?}"));
        }
        Marker::Null => {
            let _ = rest.read_u8();
            visit.other(&"None");
        }
        Marker::True | Marker::False => {
            let _ = rest.read_u8();
            visit.other(if marker == Marker::True { &"True" } else { &"False" });
        }
        Marker::U64 => visit.other(&decode::read_u64(rest).map_err(|_| KeyError::Truncated)?),
        Marker::FixPos(_)
        | Marker::FixNeg(_)
        | Marker::U8
        | Marker::U16
        | Marker::U32
        | Marker::I8
        | Marker::I16
        | Marker::I32
        | Marker::I64 => {
            visit.other(&decode::read_int::<i64, _>(rest).map_err(|_| KeyError::Truncated)?);
        }
        Marker::FixMap(_) | Marker::Map16 | Marker::Map32 => return Err(KeyError::Unsupported { found: "map" }),
        Marker::FixExt1
        | Marker::FixExt2
        | Marker::FixExt4
        | Marker::FixExt8
        | Marker::FixExt16
        | Marker::Ext8
        | Marker::Ext16
        | Marker::Ext32 => {
            return Err(KeyError::Unsupported { found: "extension" });
        }
        Marker::Reserved => return Err(KeyError::Unsupported { found: "reserved byte" }),
    }
    Ok(())
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], KeyError> {
    if rest.len() < length {
        return Err(KeyError::Truncated);
    }
    let (front, back) = rest.split_at(length);
    *rest = back;
    Ok(front)
}

impl fmt::Display for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut show = Show::default();
        let mut rest = &self.0[..];
        // The encoding was checked when the key was made.
        let _ = walk(&mut rest, 0, &mut show);
        f.write_str(&show.text)
    }
}

impl fmt::Debug for TaskKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TaskKey({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tuple(encoded: &[u8]) -> TaskKey {
        TaskKey::from_msgpack(encoded.to_vec()).unwrap()
    }

    #[test]
    fn a_key_shows_as_python_shows_it() {
        assert_eq!(TaskKey::from_text("inc-1").to_string(), "inc-1");
        assert_eq!(tuple(b"\x93\xa3a'b\x01\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00").to_string(), "('a\\'b', 1, 1.0)");
        assert_eq!(tuple(b"\x91\xa3sum").to_string(), "('sum',)");
        assert_eq!(tuple(b"\x92\xa1x\x92\xff\xc0").to_string(), "('x', (-1, None))");
    }

    #[test]
    fn an_int_and_a_float_are_two_keys() {
        assert_ne!(tuple(b"\x91\x01"), tuple(b"\x91\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00"));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        for (bytes, error) in [
            (&b"\x80"[..], KeyError::Unsupported { found: "map" }),
            (b"\xd4\x00\x00", KeyError::Unsupported { found: "extension" }),
            (b"\x92\x01", KeyError::Truncated),
            (b"\xdd\xff\xff\xff\xff", KeyError::Truncated),
            (b"\xa3ab", KeyError::Truncated),
            (b"\xa1a\x00", KeyError::Trailing { found: 1 }),
            (b"\xa1\xff", KeyError::NotText),
            (b"", KeyError::Truncated),
        ] {
            assert_eq!(TaskKey::from_msgpack(bytes.to_vec()), Err(error), "{bytes:?}");
        }
        assert_eq!(TaskKey::from_msgpack(vec![0x91; 100]), Err(KeyError::TooDeep));
        assert_eq!(TaskKey::from_msgpack(vec![0; 5000]), Err(KeyError::TooLong { found: 5000 }));
    }

    #[test]
    fn keys_are_taken_from_among_other_values() {
        let values = Bytes::from_static(b"\xa1a\x92\xa1x\x03\x80");
        assert_eq!(TaskKey::at(&values, 0), Ok((TaskKey::from_text("a"), 2)));
        assert_eq!(TaskKey::at(&values, 2), Ok((tuple(b"\x92\xa1x\x03"), 6)));
        assert_eq!(TaskKey::at(&values, 6), Err(KeyError::Unsupported { found: "map" }));
        assert_eq!(TaskKey::at(&values, 7), Err(KeyError::Truncated));
        assert_eq!(TaskKey::at(&values, 8), Err(KeyError::Truncated));
    }

    #[test]
    fn prefixes_are_those_of_dask() {
        for (text, prefix) in [
            ("x", "x"),
            ("x-1", "x"),
            ("x-1-2-3", "x"),
            ("hello-world-1", "hello-world"),
            ("ae05086432ca935f6eba409a8ecd4896", "data"),
            ("<module.submodule.myclass object at 0xdaf372", "myclass"),
            ("sum-aggregate-7a8165ab", "sum-aggregate"),
        ] {
            assert_eq!(TaskKey::from_text(text).prefix(), prefix, "{text}");
        }
        assert_eq!(tuple(b"\x92\xa5x-2.1\x01").prefix(), "x");
        assert_eq!(tuple(b"\x91\x01").prefix(), "Other");
    }
}
