//! Puts run specs together from what the builder gives.
//!
//! ```text
//! Task(key, operator.call, Task(None, pickle.loads, head + blob), Dict(0, TaskRef(dependency), …))
//! ```
//!
//! The worker unpickles all but the blob when it reads the message, and the blob when it runs the task: one that cannot be
//! unpickled fails the task, not the worker's connection. `builder/run_specs.py` says what is in a blob.
//!
//! Source: dask 2026.8.0, _task_spec.py; CPython 3.11, Lib/pickletools.py.

use crate::dask::{DependencyNames, RunSpec, RunSpecForm, TaskKey, Wrapping};
use crate::wire::msgpack::{Reader, Token};

const PROTOCOL: &[u8] = b"\x80\x04";
// Names, each put on the stack; the first two are then kept in the memo.
const TASK: &[u8] = b"\x8c\x0fdask._task_spec\x8c\x04Task\x93\x94";
const TASK_AGAIN: &[u8] = b"h\x00";
const TASK_REF: &[u8] = b"\x8c\x0fdask._task_spec\x8c\x07TaskRef\x93\x94";
const TASK_REF_AGAIN: &[u8] = b"h\x01";
const DICT: &[u8] = b"\x8c\x0fdask._task_spec\x8c\x04Dict\x93";
const LIST: &[u8] = b"\x8c\x0fdask._task_spec\x8c\x04List\x93";
const OPERATOR_CALL: &[u8] = b"\x8c\x08operator\x8c\x04call\x93";
const APPLY: &[u8] = b"\x8c\x0adask.utils\x8c\x05apply\x93";
const LOADS: &[u8] = b"\x8c\x06pickle\x8c\x05loads\x93";
const GETITEM: &[u8] = b"\x8c\x08operator\x8c\x07getitem\x93";
const EXEC: &[u8] = b"\x8c\x08builtins\x8c\x04exec\x93";
const NONE: &[u8] = b"N";
const EMPTY_DICT: &[u8] = b"}";
const ONE: &[u8] = b"K\x01";
const MARK: &[u8] = b"(";
const TUPLE: &[u8] = b"t";
const TUPLE_OF_ONE: &[u8] = b"\x85";
const TUPLE_OF_TWO: &[u8] = b"\x86";
const REDUCE: &[u8] = b"R";
const STOP: &[u8] = b".";

/// A run spec as a whole, for who runs it by itself. `dependencies` in the order in which it numbers them.
pub fn run_spec_pickle<'k>(
    run_spec: &RunSpec,
    key: &TaskKey,
    dependencies: impl ExactSizeIterator<Item = &'k TaskKey>,
) -> Vec<u8> {
    let mut buffer = Vec::new();
    if let Some(form) = run_spec.form() {
        write_up_to_blob(&mut buffer, form, key, None, run_spec.blob().len());
    }
    buffer.extend_from_slice(run_spec.blob());
    if let Some(form) = run_spec.form() {
        write_after_blob(&mut buffer, form, false, dependencies);
    }
    buffer
}

/// Writes a run spec up to its blob.
pub(in crate::wire) fn write_up_to_blob(
    buffer: &mut Vec<u8>,
    form: &RunSpecForm,
    key: &TaskKey,
    imports: Option<&str>,
    blob_length: usize,
) {
    write(buffer, &[PROTOCOL, TASK, MARK]);
    write_key(buffer, key);
    match &form.wrapping {
        Wrapping::OperatorCall => write(buffer, &[OPERATOR_CALL]),
        Wrapping::Apply => write(buffer, &[APPLY]),
        Wrapping::Coroutine { function } => {
            write(buffer, &[LOADS]);
            write_binary_head(buffer, function.len());
            write(buffer, &[function, TUPLE_OF_ONE, REDUCE]);
        }
    }
    if form.wrapping.loads_blob() {
        if let Some(imports) = imports {
            // `operator.getitem((exec(imports, {}), …), 1)`: both are evaluated, the second is taken.
            write(buffer, &[GETITEM, EXEC, MARK]);
            write_text(buffer, imports);
            write(buffer, &[EMPTY_DICT, TUPLE, REDUCE]);
        }
        write(buffer, &[TASK_AGAIN, MARK, NONE, LOADS]);
    }
    write_binary_head(buffer, form.head.len() + blob_length);
    write(buffer, &[&form.head]);
}

/// Writes what comes after the blob.
pub(in crate::wire) fn write_after_blob<'k>(
    buffer: &mut Vec<u8>,
    form: &RunSpecForm,
    has_imports: bool,
    dependencies: impl ExactSizeIterator<Item = &'k TaskKey>,
) {
    if form.wrapping.loads_blob() {
        write(buffer, &[TUPLE, REDUCE]);
        if has_imports {
            write(buffer, &[TUPLE_OF_TWO, ONE, TUPLE_OF_TWO, REDUCE]);
        }
    }
    let is_apply = form.wrapping == Wrapping::Apply;
    if is_apply {
        write(buffer, &[LIST, MARK]);
    }
    write_values(buffer, form.names, dependencies);
    if is_apply {
        write(buffer, &[TUPLE, REDUCE]);
    }
    write(buffer, &[TUPLE, REDUCE, STOP]);
}

/// The results by what stands for them; nothing for a task that needs none.
fn write_values<'k>(buffer: &mut Vec<u8>, names: DependencyNames, dependencies: impl ExactSizeIterator<Item = &'k TaskKey>) {
    if dependencies.len() == 0 {
        return;
    }
    write(buffer, &[DICT, MARK]);
    for (number, key) in dependencies.enumerate() {
        match names {
            DependencyNames::Numbers => write_integer(buffer, number as i64),
            DependencyNames::Keys => write_key(buffer, key),
        }
        write(buffer, &[if number == 0 { TASK_REF } else { TASK_REF_AGAIN }]);
        write_key(buffer, key);
        write(buffer, &[TUPLE_OF_ONE, REDUCE]);
    }
    write(buffer, &[TUPLE, REDUCE]);
}

fn write(buffer: &mut Vec<u8>, pieces: &[&[u8]]) {
    pieces.iter().for_each(|piece| buffer.extend_from_slice(piece));
}

/// A key as Python has it: arrays are tuples.
fn write_key(buffer: &mut Vec<u8>, key: &TaskKey) {
    // The encoding was checked when the key was made.
    write_element(buffer, &mut Reader::new(key.as_msgpack()));
}

fn write_element(buffer: &mut Vec<u8>, reader: &mut Reader<'_>) {
    match reader.token() {
        Ok(Token::Text(text)) => write_text(buffer, text),
        Ok(Token::Integer(integer)) => write_integer(buffer, integer),
        Ok(Token::Unsigned(integer)) => {
            buffer.extend_from_slice(b"\x8a\x09");
            buffer.extend_from_slice(&i128::from(integer).to_le_bytes()[..9]);
        }
        Ok(Token::Float(float)) => {
            buffer.push(b'G');
            buffer.extend_from_slice(&float.to_be_bytes());
        }
        Ok(Token::Boolean(boolean)) => buffer.push(if boolean { 0x88 } else { 0x89 }),
        Ok(Token::Binary(binary)) => {
            write_binary_head(buffer, binary.len());
            buffer.extend_from_slice(binary);
        }
        Ok(Token::Array(length)) => {
            write(buffer, &[MARK]);
            (0..length).for_each(|_| write_element(buffer, reader));
            write(buffer, &[TUPLE]);
        }
        Ok(Token::Nil | Token::Map(_)) | Err(_) => write(buffer, &[NONE]),
    }
}

fn write_integer(buffer: &mut Vec<u8>, integer: i64) {
    if let Ok(byte) = u8::try_from(integer) {
        buffer.extend_from_slice(&[b'K', byte]);
    } else if let Ok(short) = i32::try_from(integer) {
        buffer.push(b'J');
        buffer.extend_from_slice(&short.to_le_bytes());
    } else {
        buffer.extend_from_slice(b"\x8a\x08");
        buffer.extend_from_slice(&integer.to_le_bytes());
    }
}

fn write_text(buffer: &mut Vec<u8>, text: &str) {
    if let Ok(length) = u8::try_from(text.len()) {
        buffer.extend_from_slice(&[0x8c, length]);
    } else {
        buffer.push(b'X');
        buffer.extend_from_slice(&(text.len() as u32).to_le_bytes());
    }
    buffer.extend_from_slice(text.as_bytes());
}

/// The head of bytes; of more than 4 GiB there are none, since no frame of that size is read.
fn write_binary_head(buffer: &mut Vec<u8>, length: usize) {
    if let Ok(length) = u8::try_from(length) {
        buffer.extend_from_slice(&[b'C', length]);
    } else {
        buffer.push(b'B');
        buffer.extend_from_slice(&(length as u32).to_le_bytes());
    }
}
