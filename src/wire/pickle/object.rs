//! Makes pickles: plain data and calls of importable names.
//!
//! Protocol 4 and a handful of its opcodes, so the bytes are the same on every Python that Dask supports.
//!
//! Source: CPython 3.11, Lib/pickle.py, Lib/pickletools.py.

use bytes::Bytes;

use crate::dask::{TaskKey, WorkerAddress};
use crate::wire::value::Value;

/// A Python object to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    None,
    Boolean(bool),
    Integer(i64),
    Float(f64),
    Text(String),
    Binary(Bytes),
    Tuple(Vec<Object>),
    List(Vec<Object>),
    Dict(Vec<(Object, Object)>),
    /// An importable name: module and qualified name.
    Global(&'static str, &'static str),
    /// A callable and its arguments.
    Call(Box<Object>, Vec<Object>),
    /// An object and the state that its `__setstate__` or its `__dict__` gets.
    WithState(Box<Object>, Box<Object>),
}

impl Object {
    /// The call of an importable name.
    pub fn call(module: &'static str, name: &'static str, arguments: Vec<Self>) -> Self {
        Self::Call(Box::new(Self::Global(module, name)), arguments)
    }

    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// Evaluates an expression.
    pub fn eval(expression: &str) -> Self {
        Self::call("builtins", "eval", vec![Self::text(expression)])
    }

    /// `functools.partial(function, *arguments, **keywords)`.
    pub fn partial(function: Self, arguments: Vec<Self>, keywords: Vec<(Self, Self)>) -> Self {
        let state = vec![function.clone(), Self::Tuple(arguments), Self::Dict(keywords), Self::None];
        Self::WithState(Box::new(Self::call("functools", "partial", vec![function])), Box::new(Self::Tuple(state)))
    }

    pub fn value_error(text: &str) -> Self {
        Self::call("builtins", "ValueError", vec![Self::text(text)])
    }

    pub fn runtime_error(text: &str) -> Self {
        Self::call("builtins", "RuntimeError", vec![Self::text(text)])
    }

    pub fn os_error(text: &str) -> Self {
        Self::call("builtins", "OSError", vec![Self::text(text)])
    }

    /// A comm that ended before there was an answer.
    pub fn comm_closed_error(text: &str) -> Self {
        Self::call("distributed.comm.core", "CommClosedError", vec![Self::text(text)])
    }

    pub fn type_error(text: &str) -> Self {
        Self::call("builtins", "TypeError", vec![Self::text(text)])
    }

    pub fn key_error(text: &str) -> Self {
        Self::call("builtins", "KeyError", vec![Self::text(text)])
    }

    pub fn not_implemented_error(text: &str) -> Self {
        Self::call("builtins", "NotImplementedError", vec![Self::text(text)])
    }

    /// What Clients wait for when a time is up; the same class as the built-in one from Python 3.11 on.
    pub fn timeout_error(text: &str) -> Self {
        Self::call("asyncio.exceptions", "TimeoutError", vec![Self::text(text)])
    }

    pub fn cancelled_error(text: &str) -> Self {
        Self::call("concurrent.futures._base", "CancelledError", vec![Self::text(text)])
    }

    /// The workers that ran a task died, one after the other. Of the last one only the address is ever read.
    ///
    /// Source: distributed 2026.8.0, scheduler.py: `KilledWorker`.
    pub fn killed_worker(key: &TaskKey, last_worker: &WorkerAddress, allowed_failures: u32) -> Self {
        let namespace = Self::WithState(
            Box::new(Self::call("types", "SimpleNamespace", Vec::new())),
            Box::new(Self::Dict(vec![(Self::text("address"), Self::text(last_worker.as_str()))])),
        );
        let arguments = vec![Self::from(&Value::from(key)), namespace, Self::Integer(i64::from(allowed_failures))];
        Self::call("distributed.scheduler", "KilledWorker", arguments)
    }

    /// The pickle.
    pub fn dumps(&self) -> Bytes {
        let mut buffer = vec![0x80, 4];
        self.write(&mut buffer);
        buffer.push(b'.');
        buffer.into()
    }

    /// The pickle of a tuple with these elements and, as the last, bytes of which the pieces are given: none is copied.
    pub fn dumps_with_pieces(elements: &[Self], pieces: Vec<Bytes>) -> Vec<Bytes> {
        let mut head = vec![0x80, 4, b'('];
        write_all(&mut head, elements);
        write_binary_head(&mut head, pieces.iter().map(Bytes::len).sum());
        let mut pickle = vec![head.into()];
        pickle.extend(pieces.into_iter().filter(|piece| !piece.is_empty()));
        pickle.push(Bytes::from_static(b"t."));
        pickle
    }

    fn write(&self, buffer: &mut Vec<u8>) {
        match self {
            Self::None => buffer.push(b'N'),
            Self::Boolean(true) => buffer.push(0x88),
            Self::Boolean(false) => buffer.push(0x89),
            Self::Integer(integer) => write_integer(buffer, *integer),
            Self::Float(float) => {
                buffer.push(b'G');
                buffer.extend_from_slice(&float.to_be_bytes());
            }
            Self::Text(text) => write_text(buffer, text),
            Self::Binary(binary) => write_binary(buffer, binary),
            Self::Tuple(elements) => write_tuple(buffer, elements),
            Self::List(elements) => {
                buffer.extend_from_slice(b"](");
                write_all(buffer, elements);
                buffer.push(b'e');
            }
            Self::Dict(entries) => {
                buffer.extend_from_slice(b"}(");
                for (key, value) in entries {
                    key.write(buffer);
                    value.write(buffer);
                }
                buffer.push(b'u');
            }
            Self::Global(module, name) => {
                write_text(buffer, module);
                write_text(buffer, name);
                buffer.push(0x93);
            }
            Self::Call(callable, arguments) => {
                callable.write(buffer);
                write_tuple(buffer, arguments);
                buffer.push(b'R');
            }
            Self::WithState(object, state) => {
                object.write(buffer);
                state.write(buffer);
                buffer.push(b'b');
            }
        }
    }
}

fn write_all(buffer: &mut Vec<u8>, elements: &[Object]) {
    for element in elements {
        element.write(buffer);
    }
}

fn write_tuple(buffer: &mut Vec<u8>, elements: &[Object]) {
    if elements.is_empty() {
        buffer.push(b')');
        return;
    }
    buffer.push(b'(');
    write_all(buffer, elements);
    buffer.push(b't');
}

fn write_integer(buffer: &mut Vec<u8>, integer: i64) {
    if let Ok(short) = i32::try_from(integer) {
        buffer.push(b'J');
        buffer.extend_from_slice(&short.to_le_bytes());
    } else {
        buffer.extend_from_slice(&[0x8a, 8]);
        buffer.extend_from_slice(&integer.to_le_bytes());
    }
}

fn write_text(buffer: &mut Vec<u8>, text: &str) {
    buffer.push(0x8d);
    buffer.extend_from_slice(&(text.len() as u64).to_le_bytes());
    buffer.extend_from_slice(text.as_bytes());
}

fn write_binary(buffer: &mut Vec<u8>, binary: &[u8]) {
    write_binary_head(buffer, binary.len());
    buffer.extend_from_slice(binary);
}

fn write_binary_head(buffer: &mut Vec<u8>, length: usize) {
    buffer.push(0x8e);
    buffer.extend_from_slice(&(length as u64).to_le_bytes());
}

impl From<&Value> for Object {
    /// A message's value as Python has it after reading: arrays are tuples there. Values in frames of their own have no
    /// place in a pickle and become `None`.
    fn from(value: &Value) -> Self {
        match value {
            Value::Nil | Value::Serialized(_) | Value::Pickled(_) => Self::None,
            Value::Boolean(boolean) => Self::Boolean(*boolean),
            Value::Integer(integer) => Self::Integer(*integer),
            Value::Unsigned(integer) => Self::call("builtins", "int", vec![Self::text(integer.to_string())]),
            Value::Float(float) => Self::Float(*float),
            Value::Text(text) => Self::text(text.as_str()),
            Value::Binary(binary) => Self::Binary(binary.clone()),
            Value::Array(elements) => Self::Tuple(elements.iter().map(Self::from).collect()),
            Value::Set(elements) => Self::call("builtins", "set", vec![Self::List(elements.iter().map(Self::from).collect())]),
            Value::Map(entries) => Self::Dict(entries.iter().map(|(key, value)| (key.into(), value.into())).collect()),
        }
    }
}
