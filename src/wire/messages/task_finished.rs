//! The message that workers send most: a task's result is in memory.

use bytes::Bytes;

use crate::dask::TaskKey;
use crate::wire::document::{DocumentError, Fields};
use crate::wire::msgpack::{Reader, Token};

/// A task's result is in the worker's memory.
///
/// The key and the pickle share the memory of the message: whoever keeps them copies them.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskFinished {
    pub key: TaskKey,
    pub run_id: u64,
    pub nbytes: u64,
    /// Pickle of the result's class, or of its name.
    pub type_pickle: Bytes,
    /// How long the task computed, if the worker says so.
    pub compute_seconds: Option<f64>,
}

/// Something a task did, in seconds since 1970 by the worker's clock.
#[derive(Clone, Copy, Debug)]
struct StartStop<'m> {
    /// `compute`, `transfer`, `disk-read`, `disk-write` or `deserialize`.
    action: &'m str,
    start: f64,
    stop: f64,
}

impl TaskFinished {
    /// Reads any such message, and says what is wrong with any other.
    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, DocumentError> {
        let mut compute_seconds = None;
        if fields.has("startstops") {
            for each in fields.array_of_fields("startstops")? {
                let startstop =
                    StartStop { action: each.text("action")?, start: each.number("start")?, stop: each.number("stop")? };
                startstop.add_to(&mut compute_seconds);
            }
        }
        Ok(Self {
            key: fields.key("key")?,
            run_id: fields.unsigned("run_id")?,
            nbytes: fields.unsigned("nbytes")?,
            type_pickle: fields.binary("type")?,
            compute_seconds,
        })
    }
}

impl<'m> StartStop<'m> {
    fn read(reader: &mut Reader<'m>, elements_left: &mut usize) -> Option<Self> {
        let Token::Map(length) = reader.token().ok()? else { return None };
        let (mut action, mut start, mut stop) = (None, None, None);
        for _ in 0..length {
            match reader.short_ascii()? {
                b"action" => {
                    let Token::Text(text) = reader.token().ok()? else { return None };
                    action = Some(text);
                }
                b"start" => start = Some(number(reader)?),
                b"stop" => stop = Some(number(reader)?),
                _ => {
                    reader.skip(elements_left).ok()?;
                }
            }
        }
        *elements_left = elements_left.checked_sub(length)?;
        Some(Self { action: action?, start: start?, stop: stop? })
    }

    /// Adds its time if the task computed.
    fn add_to(&self, compute_seconds: &mut Option<f64>) {
        if self.action == "compute" {
            *compute_seconds.get_or_insert(0.0) += (self.stop - self.start).max(0.0);
        }
    }
}

/// Adds up how long the task computed.
pub(super) fn read_startstops(
    reader: &mut Reader<'_>,
    elements_left: &mut usize,
    compute_seconds: &mut Option<f64>,
) -> Option<()> {
    let Token::Array(length) = reader.token().ok()? else { return None };
    for _ in 0..length {
        StartStop::read(reader, elements_left)?.add_to(compute_seconds);
    }
    Some(())
}

fn number(reader: &mut Reader<'_>) -> Option<f64> {
    match reader.token().ok()? {
        Token::Integer(integer) => Some(integer as f64),
        Token::Float(float) => Some(float),
        _ => None,
    }
}
