//! What may be a name of what. The same rules as those of the schema (`api::spec`), by hand.

use super::{CALLABLE_LENGTH_MAX, Error, NAME_LENGTH_MAX, Problem};

/// Python 3.14's `keyword.kwlist`: names that no variable can have.
const KEYWORDS: [&str; 35] = [
    "False", "None", "True", "and", "as", "assert", "async", "await", "break", "class", "continue", "def", "del", "elif", "else",
    "except", "finally", "for", "from", "global", "if", "import", "in", "is", "lambda", "nonlocal", "not", "or", "pass", "raise",
    "return", "try", "while", "with", "yield",
];

/// A text that is there and not too long.
pub(super) fn length(field: &str, text: &str, max: usize) -> Result<(), Error> {
    if text.is_empty() {
        return Err(Error::new(field, Problem::Empty));
    }
    if text.chars().count() > max {
        return Err(Error::new(field, Problem::TooLong { found: text.len(), max }));
    }
    Ok(())
}

pub(super) fn variable(field: &str, text: &str) -> Result<(), Error> {
    length(field, text, NAME_LENGTH_MAX)?;
    if !is_identifier(text) {
        return Err(Error::new(field, Problem::NotAVariable { found: text.to_owned() }));
    }
    if KEYWORDS.contains(&text) {
        return Err(Error::new(field, Problem::Keyword { found: text.to_owned() }));
    }
    Ok(())
}

pub(super) fn object_name(field: &str, text: &str) -> Result<(), Error> {
    length(field, text, NAME_LENGTH_MAX)?;
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.');
    if has_ends(text, |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) && text.bytes().all(is_inner) {
        return Ok(());
    }
    Err(Error::new(field, Problem::NotAnObjectName { found: text.to_owned() }))
}

/// `module:name`, both of them possibly with dots.
pub(super) fn callable(field: &str, text: &str) -> Result<(), Error> {
    length(field, text, CALLABLE_LENGTH_MAX)?;
    let is_dotted = |part: &str| part.split('.').all(is_identifier);
    match text.split_once(':') {
        Some((module, name)) if is_dotted(module) && is_dotted(name) => Ok(()),
        _ => Err(Error::new(field, Problem::NotCallable { found: text.to_owned() })),
    }
}

pub(super) fn label_key(field: &str, text: &str) -> Result<(), Error> {
    let (prefix, name) = text.split_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let is_prefix = |prefix: &str| prefix.len() <= NAME_LENGTH_MAX && object_name(field, prefix).is_ok();
    if prefix.is_none_or(is_prefix) && !name.is_empty() && is_label_text(name) {
        return Ok(());
    }
    Err(Error::new(field, Problem::NotALabel { found: text.to_owned() }))
}

pub(super) fn label_value(field: &str, text: &str) -> Result<(), Error> {
    if text.is_empty() || is_label_text(text) {
        return Ok(());
    }
    Err(Error::new(field, Problem::NotALabelValue { found: text.to_owned() }))
}

pub(super) fn resource(field: &str, text: &str) -> Result<(), Error> {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'/' | b':' | b'-');
    let starts = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if starts && text.len() <= 63 && text.bytes().all(is_inner) {
        return Ok(());
    }
    Err(Error::new(field, Problem::NotAResource { found: text.to_owned() }))
}

fn is_identifier(text: &str) -> bool {
    text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn is_label_text(text: &str) -> bool {
    text.len() <= 63
        && has_ends(text, |byte| byte.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn has_ends(text: &str, is_end: impl Fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(|&byte| is_end(byte)) && bytes.last().is_some_and(|&byte| is_end(byte))
}
