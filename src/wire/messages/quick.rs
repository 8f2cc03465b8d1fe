//! Reads what workers say most in one pass: results, and replicas that they have or dropped.
//!
//! Whatever is not as workers write it, is there twice or is wrong is left to those who read field by field and say what is
//! wrong. A stock worker writes the op after the other fields, so nothing is known of a message before all of it is read.

use bytes::Bytes;

use super::FromWorker;
use super::task_finished::{TaskFinished, read_startstops};
use crate::dask::TaskKey;
use crate::wire::fields::shared_key;
use crate::wire::msgpack::{Reader, Token};

/// The fields that count, as far as they were there.
#[derive(Default)]
struct Found<'m> {
    op: Option<&'m [u8]>,
    key: Option<TaskKey>,
    keys: Option<Vec<TaskKey>>,
    run_id: Option<u64>,
    nbytes: Option<u64>,
    type_pickle: Option<Bytes>,
    has_startstops: bool,
    compute_seconds: Option<f64>,
}

/// The message at a reader, if it is one of those.
pub(super) fn read<'m>(document: &'m Bytes, reader: &mut Reader<'m>, elements_left: &mut usize) -> Option<FromWorker> {
    let Token::Map(length) = reader.token().ok()? else { return None };
    *elements_left = elements_left.checked_sub(length)?;
    let mut found = Found::default();
    for _ in 0..length {
        found.read_field(document, reader, elements_left)?;
    }
    match found.op? {
        b"task-finished" => Some(FromWorker::TaskFinished(TaskFinished {
            key: found.key?,
            run_id: found.run_id?,
            nbytes: found.nbytes?,
            type_pickle: found.type_pickle?,
            compute_seconds: found.compute_seconds,
        })),
        b"release-worker-data" => Some(FromWorker::ReleaseWorkerData { key: found.key? }),
        b"add-keys" => Some(FromWorker::AddKeys { keys: found.keys? }),
        _ => None,
    }
}

impl<'m> Found<'m> {
    fn read_field(&mut self, document: &'m Bytes, reader: &mut Reader<'m>, elements_left: &mut usize) -> Option<()> {
        let is_first = match reader.short_ascii()? {
            b"op" => self.op.replace(reader.short_ascii()?).is_none(),
            b"key" => self.key.replace(shared_key(document, reader)?).is_none(),
            b"keys" => self.keys.replace(shared_keys(document, reader, elements_left)?).is_none(),
            b"run_id" => self.run_id.replace(unsigned(reader)?).is_none(),
            b"nbytes" => self.nbytes.replace(unsigned(reader)?).is_none(),
            b"type" => self.type_pickle.replace(binary(document, reader)?).is_none(),
            b"startstops" => {
                read_startstops(reader, elements_left, &mut self.compute_seconds)?;
                !std::mem::replace(&mut self.has_startstops, true)
            }
            _ => reader.skip(elements_left).is_ok(),
        };
        is_first.then_some(())
    }
}

fn shared_keys<'m>(document: &'m Bytes, reader: &mut Reader<'m>, elements_left: &mut usize) -> Option<Vec<TaskKey>> {
    let Token::Array(length) = reader.token().ok()? else { return None };
    *elements_left = elements_left.checked_sub(length)?;
    let mut keys = Vec::with_capacity(reader.capacity(length));
    for _ in 0..length {
        keys.push(shared_key(document, reader)?);
    }
    Some(keys)
}

fn unsigned(reader: &mut Reader<'_>) -> Option<u64> {
    match reader.token().ok()? {
        Token::Integer(integer) => u64::try_from(integer).ok(),
        Token::Unsigned(integer) => Some(integer),
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

    use super::read;
    use crate::dask::TaskKey;
    use crate::wire::document::{DocumentError, Fields};
    use crate::wire::frame::Message;
    use crate::wire::messages::{FromWorker, TaskFinished};
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
        match read(document, &mut Reader::new(document), &mut 100)? {
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
        for _ in 0..fields.len() {
            fields.rotate_left(1);
            let document = document(&fields);
            let finished = quickly(&document).unwrap();
            assert_eq!(finished.key.to_string(), "('x', 3)");
            assert_eq!(finished.compute_seconds, Some(2.5));
            assert_eq!(thoroughly(&document), Ok(finished));
        }
    }

    #[test]
    fn what_is_there_twice_is_left_to_the_thorough_reader() {
        let mut twice = fields();
        twice.push(("nbytes", 29_i64.into()));
        let document = document(&twice);
        assert_eq!(quickly(&document), None);
        assert_eq!(thoroughly(&document).unwrap().nbytes, 29);
    }

    #[test]
    fn what_a_worker_holds_and_dropped_is_read_as_thoroughly() {
        let key = || Value::Array(vec!["x".into(), 3_i64.into()]);
        let (op, stimulus) = (|op: &str| ("op", Value::from(op)), ("stimulus_id", Value::from("s")));
        let released = vec![("key", key()), op("release-worker-data"), stimulus.clone()];
        let added = vec![("keys", Value::Array(vec![key(), "y".into()])), op("add-keys"), stimulus];
        for fields in [released, added] {
            let usual = document(&fields);
            let quickly = read(&usual, &mut Reader::new(&usual), &mut 100);
            let message = Message { frames: vec![[b"\x91", &usual[..]].concat().into()] };
            assert!(quickly.is_some());
            assert_eq!(FromWorker::decode_batch(&message).unwrap(), Vec::from_iter(quickly));
            let thoroughly = FromWorker::read(
                &Fields::next(&Message { frames: vec![usual.clone()] }, &mut Reader::new(&usual), &mut 100).unwrap(),
            );
            assert_eq!(thoroughly, Ok(read(&usual, &mut Reader::new(&usual), &mut 100).unwrap()));
            let wrong = document(&[fields[1].clone(), ("key", Value::Nil), ("keys", 7_i64.into())]);
            assert_eq!(read(&wrong, &mut Reader::new(&wrong), &mut 100), None);
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
