//! The message that workers send most: a task's result is in memory.

use bytes::Bytes;

use crate::dask::TaskKey;
use crate::wire::document::{DocumentError, Fields};
use crate::wire::fields::shared_key;
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

    /// Reads the fields after the op in one pass, if they are as workers write them: nothing twice, nothing wrong.
    pub(super) fn read_quickly<'m>(
        document: &'m Bytes,
        reader: &mut Reader<'m>,
        fields: usize,
        elements_left: &mut usize,
    ) -> Option<Self> {
        let (mut key, mut run_id, mut nbytes, mut type_pickle, mut compute_seconds) = (None, None, None, None, None);
        for _ in 0..fields {
            let is_first = match reader.short_ascii()? {
                b"key" => key.replace(shared_key(document, reader)?).is_none(),
                b"run_id" => run_id.replace(unsigned(reader)?).is_none(),
                b"nbytes" => nbytes.replace(unsigned(reader)?).is_none(),
                b"type" => type_pickle.replace(binary(document, reader)?).is_none(),
                b"startstops" => {
                    let is_first = compute_seconds.is_none();
                    read_startstops(reader, elements_left, &mut compute_seconds)?;
                    is_first
                }
                b"op" => false,
                _ => reader.skip(elements_left).is_ok(),
            };
            if !is_first {
                return None;
            }
        }
        Some(Self { key: key?, run_id: run_id?, nbytes: nbytes?, type_pickle: type_pickle?, compute_seconds })
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

fn read_startstops(reader: &mut Reader<'_>, elements_left: &mut usize, compute_seconds: &mut Option<f64>) -> Option<()> {
    let Token::Array(length) = reader.token().ok()? else { return None };
    for _ in 0..length {
        StartStop::read(reader, elements_left)?.add_to(compute_seconds);
    }
    Some(())
}

fn unsigned(reader: &mut Reader<'_>) -> Option<u64> {
    match reader.token().ok()? {
        Token::Integer(integer) => u64::try_from(integer).ok(),
        Token::Unsigned(integer) => Some(integer),
        _ => None,
    }
}

fn number(reader: &mut Reader<'_>) -> Option<f64> {
    match reader.token().ok()? {
        Token::Integer(integer) => Some(integer as f64),
        Token::Float(float) => Some(float),
        _ => None,
    }
}

fn binary(document: &Bytes, reader: &mut Reader<'_>) -> Option<Bytes> {
    match reader.token().ok()? {
        Token::Binary(binary) => Some(document.slice_ref(binary)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::TaskFinished;
    use crate::dask::TaskKey;
    use crate::wire::document::{DocumentError, Fields};
    use crate::wire::frame::Message;
    use crate::wire::messages::FromWorker;
    use crate::wire::msgpack::Reader;
    use crate::wire::value::Value;

    fn startstop(action: &str, stop: f64) -> Value {
        Value::map([("action", action.into()), ("start", 1.0.into()), ("stop", stop.into()), ("source", Value::Nil)])
    }

    fn fields() -> Vec<(&'static str, Value)> {
        let startstops = vec![startstop("transfer", 9.0), startstop("compute", 3.0), startstop("compute", 1.5)];
        vec![
            ("op", "task-finished".into()),
            ("key", Value::Array(vec!["x".into(), 3_i64.into()])),
            ("run_id", u64::MAX.into()),
            ("nbytes", 28_i64.into()),
            ("unheard-of", Value::map([("a", Value::Array(vec![Value::Nil]))])),
            ("startstops", Value::Array(startstops)),
            ("type", Value::Binary(Bytes::from_static(b"int"))),
        ]
    }

    fn document(fields: &[(&'static str, Value)]) -> Bytes {
        Value::Map(fields.iter().map(|(name, value)| ((*name).into(), value.clone())).collect()).to_msgpack().into()
    }

    fn quickly(document: &Bytes) -> Option<TaskFinished> {
        match FromWorker::read_quickly(document, &mut Reader::new(document), &mut 100)? {
            FromWorker::TaskFinished(finished) => Some(finished),
            _ => None,
        }
    }

    fn thoroughly(document: &Bytes) -> Result<TaskFinished, DocumentError> {
        let message = Message { frames: vec![document.clone()] };
        TaskFinished::read(&Fields::next(&message, &mut Reader::new(document), &mut 100)?)
    }

    #[test]
    fn both_readers_read_the_same() {
        let mut fields = fields();
        for _ in 1..fields.len() {
            fields[1..].rotate_left(1);
            let document = document(&fields);
            let finished = quickly(&document).unwrap();
            assert_eq!(finished.key.to_string(), "('x', 3)");
            assert_eq!(finished.compute_seconds, Some(2.5));
            assert_eq!(thoroughly(&document), Ok(finished));
        }
    }

    #[test]
    fn what_is_unusual_is_left_to_the_thorough_reader() {
        let mut op_last = fields();
        op_last.rotate_left(1);
        let mut twice = fields();
        twice.push(("nbytes", 29_i64.into()));
        for (fields, nbytes) in [(op_last, 28), (twice, 29)] {
            let document = document(&fields);
            assert_eq!(quickly(&document), None);
            assert_eq!(thoroughly(&document).unwrap().nbytes, nbytes);
        }
    }

    #[test]
    fn what_is_wrong_is_said_as_ever() {
        for (index, (field, _)) in fields().into_iter().enumerate().skip(1).filter(|(_, (field, _))| *field != "unheard-of") {
            for wrong in [Value::Nil, Value::Map(Vec::new())] {
                let mut fields = fields();
                fields[index].1 = wrong;
                let batch =
                    Value::Array(vec![Value::Map(fields.iter().map(|(name, value)| ((*name).into(), value.clone())).collect())]);
                let message = Message { frames: vec![batch.to_msgpack().into()] };
                let read = FromWorker::decode_batch(&message);
                if field == "startstops" && fields[index].1 == Value::Nil {
                    assert!(
                        matches!(&read.unwrap()[..], [FromWorker::TaskFinished(finished)] if finished.compute_seconds.is_none())
                    );
                } else {
                    assert!(read.unwrap_err().to_string().contains(field), "{field}");
                }
            }
        }
    }

    #[test]
    fn the_key_is_written_as_small_as_python_writes_it() {
        // `1` in nine bytes.
        let mut document = b"\x85\xa2op\xadtask-finished\xa3key\x91\xcf\0\0\0\0\0\0\0\x01\xa6run_id\x01\xa6nbytes\x01".to_vec();
        document.extend_from_slice(b"\xa4type\xc4\x01x");
        let document = Bytes::from(document);
        assert_eq!(quickly(&document), None);
        assert_eq!(thoroughly(&document).unwrap().key, TaskKey::from_msgpack(&b"\x91\x01"[..]).unwrap());
    }
}
