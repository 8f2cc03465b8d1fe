//! Framing: what arrives in any pieces is the same message, and what breaks a limit ends at once.

use bytes::Bytes;
use mainstay::wire::messages::{FromWorker, Request};
use mainstay::wire::msgpack::MsgpackError;
use mainstay::wire::{DocumentError, Encoder, FrameDecoder, FrameError, Handshake, HandshakeError, Limits, Message, Value};

use crate::support::{arrived, captures};

#[test]
fn a_message_cut_anywhere_is_the_same_message() {
    for capture in captures().iter().filter(|capture| capture.bytes.len() < 700) {
        let whole = capture.message();
        for cut in 0..=capture.bytes.len() {
            let mut decoder = FrameDecoder::new(Limits::REGISTERED);
            decoder.buffer().extend_from_slice(&capture.bytes[..cut]);
            let early = decoder.poll().unwrap();
            assert_eq!(early.is_some(), cut == capture.bytes.len());
            assert_eq!(decoder.buffered(), if early.is_some() { 0 } else { cut });
            decoder.buffer().extend_from_slice(&capture.bytes[cut..]);
            let message = early.or_else(|| decoder.poll().unwrap());
            assert_eq!(message.as_ref(), Some(&whole), "{} cut at {cut}", capture.path.display());
            assert!(!decoder.is_in_message());
        }
    }
}

#[test]
fn messages_follow_one_another_byte_by_byte() {
    let captures = captures();
    let mut decoder = FrameDecoder::new(Limits::REGISTERED);
    let mut found = Vec::new();
    for capture in captures.iter().take(40) {
        for byte in &capture.bytes {
            decoder.buffer().extend_from_slice(&[*byte]);
            found.extend(decoder.poll().unwrap());
        }
    }
    let expected: Vec<Message> = captures.iter().take(40).map(|capture| capture.message()).collect();
    assert_eq!(found, expected);
}

#[test]
fn frames_after_the_first_read_are_read_too() {
    // N covers the prelude and the first of three frames.
    let mut bytes = words(&[8 * 4 + 1, 3, 1, 0, 2]);
    bytes.extend_from_slice(b"abc");
    let mut decoder = FrameDecoder::new(Limits::HANDSHAKE);
    decoder.buffer().extend_from_slice(&bytes);
    let frames = decoder.poll().unwrap().unwrap().frames;
    assert_eq!(frames, ["a", "", "bc"].map(Bytes::from));
}

#[test]
fn big_frames_are_passed_on_as_they_are_and_left_out_of_the_first_read() {
    let big = Bytes::from(vec![7; 1 << 20]);
    let value = Value::Array(vec![
        mainstay::wire::opaque::plain_bytes(big.clone()).into(),
        mainstay::wire::opaque::plain_bytes(Bytes::from_static(b"small")).into(),
    ]);
    let chunks = value.encode();
    let place = chunks.iter().position(|chunk| chunk.as_ptr() == big.as_ptr()).expect("the big frame is not copied");
    let first_read = u64::from_le_bytes(chunks[0][..8].try_into().unwrap());
    assert_eq!(first_read as usize + 8, chunks[..place].iter().map(Bytes::len).sum::<usize>());
    assert_eq!(Value::decode(&arrived(chunks)).unwrap(), value);
}

#[test]
fn what_is_no_dask_peer_ends_at_its_first_bytes() {
    assert_eq!(
        poll(Limits::HANDSHAKE, b"GET / HTTP/1.1\r\n"),
        Err(FrameError::MessageTooLong { found: u64::from_le_bytes(*b"GET / HT"), max: 64 * 1024 })
    );
    for announced in [1 << 31, 1 << 34, 1 << 36, u64::MAX] {
        for limits in [Limits::HANDSHAKE, Limits::UNREGISTERED, Limits::REGISTERED] {
            let error = poll(limits, &words(&[announced]));
            let max = limits.message_bytes_max;
            assert!(error == Err(FrameError::MessageTooLong { found: announced, max }) || announced <= max, "{error:?}");
        }
    }
}

#[test]
fn what_is_announced_is_judged_as_soon_as_it_is_there() {
    let max = 64 * 1024;
    for (announced, error) in [
        (vec![66, 0], FrameError::NoFrame),
        (vec![66, 1 << 40], FrameError::TooManyFrames { found: 1 << 40, max: 64 }),
        (vec![66, 65], FrameError::TooManyFrames { found: 65, max: 64 }),
        (vec![66, 2, 1 << 30], FrameError::FrameTooLong { found: 1 << 30, max }),
        (vec![66, 2, u64::MAX], FrameError::FrameTooLong { found: u64::MAX, max }),
        (vec![66, 2, max], FrameError::MessageTooLong { found: max + 24, max }),
        (vec![66, 1, 10], FrameError::Misaligned { found: 66 }),
        (vec![3, 1, 10], FrameError::Misaligned { found: 3 }),
    ] {
        assert_eq!(poll(Limits::HANDSHAKE, &words(&announced)), Err(error), "{announced:?}");
    }
}

#[test]
fn nothing_is_allocated_from_an_announced_size() {
    let mut decoder = FrameDecoder::new(Limits::REGISTERED);
    // 64 MiB are announced, 1 KiB comes.
    decoder.buffer().extend_from_slice(&words(&[16 + (64 << 20), 1, 64 << 20]));
    decoder.buffer().extend_from_slice(&[0; 1024]);
    assert_eq!(decoder.poll(), Ok(None));
    assert_eq!(decoder.buffered(), 24 + 1024);
    assert!(decoder.buffer().capacity() <= 4096, "{}", decoder.buffer().capacity());
    // Most frames that may be, none of them there.
    let mut decoder = FrameDecoder::new(Limits::REGISTERED);
    decoder.buffer().extend_from_slice(&words(&[1 << 20, 64 * 1024]));
    assert_eq!(decoder.poll(), Ok(None));
    assert!(decoder.buffer().capacity() <= 4096);
}

#[test]
fn hostile_documents_are_errors() {
    let nested = [0x91_u8].repeat(100_000);
    let nested_maps = [0x81_u8, 0x00].repeat(100_000);
    for (document, error) in [
        (&nested[..], MsgpackError::TooDeep),
        (&nested_maps, MsgpackError::TooDeep),
        (b"\xdd\xff\xff\xff\xff", MsgpackError::Truncated),
        (b"\xdf\xff\xff\xff\xff", MsgpackError::Truncated),
        (b"\xdb\xff\xff\xff\xff", MsgpackError::Truncated),
        (b"\xc6\xff\xff\xff\xff", MsgpackError::Truncated),
        (b"\xd4\x00\x00", MsgpackError::Extension),
        (b"\xc1", MsgpackError::Extension),
        (b"\xa1\xff", MsgpackError::NotText),
        (b"\x90\x90", MsgpackError::Trailing { found: 1 }),
        (b"", MsgpackError::Truncated),
    ] {
        let message = Message { frames: vec![Bytes::copy_from_slice(document)] };
        let error = DocumentError::Msgpack(error);
        assert_eq!(Value::decode(&message), Err(error.clone()));
        assert_eq!(FromWorker::decode_batch(&message), Err(error.clone()));
        assert_eq!(Handshake::decode(&message), Err(HandshakeError::Document(error)));
    }
}

#[test]
fn documents_nest_as_deep_as_python_writes_them() {
    let deep = (0..255).fold(Value::Nil, |inner, _| Value::map([("children", Value::Array(vec![inner]))]));
    let message = arrived(deep.encode());
    assert_eq!(Value::decode(&message), Ok(deep));
}

#[test]
fn too_many_elements_are_refused_before_anything_is_built() {
    let mut encoder = Encoder::new();
    encoder.array(8_100_000);
    for _ in 0..8_100_000 {
        encoder.nil();
    }
    let message = arrived(encoder.finish());
    let error = DocumentError::Msgpack(MsgpackError::TooManyElements { max: 8_000_000 });
    assert_eq!(Value::decode(&message), Err(error));
}

#[test]
fn a_handshake_must_have_all_its_fields() {
    let decode = |value: Value| Handshake::decode(&arrived(value.encode()));
    let whole = [("compression", Value::Nil), ("python", vec![3_i64, 11, 7].into()), ("pickle-protocol", 5_i64.into())];
    let [compression, python, protocol] = whole.clone();
    assert_eq!(decode(Value::map(whole)).unwrap().python, [3, 11, 7]);
    assert_eq!(
        decode(Value::map([compression.clone(), python.clone()])),
        Err(HandshakeError::Field { field: "pickle-protocol" })
    );
    assert_eq!(decode(Value::map([python, protocol.clone()])), Err(HandshakeError::Field { field: "compression" }));
    assert_eq!(decode(Value::map([compression, protocol])), Err(HandshakeError::Field { field: "python" }));
    assert_eq!(decode(Value::Array(Vec::new())), Err(HandshakeError::Field { field: "compression" }));
    // A pickle in the handshake is a value like any other: nothing unpickles it.
    let pickled = Value::map([("x", mainstay::wire::Pickled::new(b"cos\nsystem\n.").into())]);
    assert_eq!(decode(pickled), Err(HandshakeError::Field { field: "compression" }));
}

#[test]
fn frames_that_are_not_there_are_errors() {
    let document = |frame: i64| Value::map([("__Serialized__", frame.into())]).encode();
    for frame in [1, 7, i64::MAX] {
        let error = DocumentError::NoSuchFrame { frame, frames: 1 };
        assert_eq!(Value::decode(&arrived(document(frame))), Err(error.clone()));
        // Also where the reference could pass for a map of keys to values.
        let data = Value::map([("__Serialized__", frame.into())]);
        let request = Value::map([("op", "scatter".into()), ("data", data)]).encode();
        assert_eq!(Request::decode(arrived(request)).map(|request| request.reply), Err(error));
    }
    // A header that claims more frames than there are.
    let mut message = arrived(document(1));
    message.frames.push(Bytes::from_static(b"\x81\xaenum-sub-frames\x05"));
    assert_eq!(Value::decode(&message), Err(DocumentError::NoSuchFrame { frame: 1, frames: 2 }));
    message.frames[1] = Bytes::from_static(b"\x81\xaenum-sub-frames\xff");
    assert_eq!(Value::decode(&message), Err(DocumentError::NoSuchFrame { frame: 1, frames: 2 }));
    // One value in two places: many places would make much of little.
    let twice = Value::Array(vec![Value::map([("__Serialized__", 1_i64.into())]); 2]).encode();
    let mut shared = arrived(twice);
    shared.frames.push(Bytes::from_static(b"\x81\xaenum-sub-frames\x00"));
    assert_eq!(Value::decode(&shared), Err(DocumentError::SharedFrames));
    message.frames[1] = Bytes::from_static(b"\x80");
    assert_eq!(Value::decode(&message), Err(DocumentError::OpaqueHeader { frame: 1 }));
}

#[test]
fn an_error_names_the_field_and_both_types() {
    let request = |value: Value| Request::decode(arrived(value.encode())).unwrap();
    let gather = request(Value::map([("op", "gather".into()), ("keys", "x".into())]));
    assert_eq!(gather.fields().keys("keys").unwrap_err().to_string(), "field `keys` of `gather` is a text; expected an array");
    assert_eq!(gather.fields().keys("other").unwrap_err().to_string(), "`gather` has no field `other`");
    let odd = request(Value::map([("op", "who_has".into()), ("keys", Value::Array(vec![Value::Map(Vec::new())]))]));
    assert_eq!(odd.fields().keys("keys").unwrap_err().to_string(), "field `keys` of `who_has` holds no task key");
}

#[test]
fn a_key_is_canonical_whatever_the_peer_wrote() {
    // ("x", 1) with long headers.
    let long = b"\x82\xa2op\xa1o\xa3key\xdc\x00\x02\xd9\x01x\xcd\x00\x01";
    let request = Request::decode(Message { frames: vec![Bytes::from_static(long)] }).unwrap();
    assert_eq!(request.fields().key("key").unwrap().as_msgpack(), b"\x92\xa1x\x01");
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn poll(limits: Limits, bytes: &[u8]) -> Result<Option<Message>, FrameError> {
    let mut decoder = FrameDecoder::new(limits);
    decoder.buffer().extend_from_slice(bytes);
    decoder.poll()
}
