//! Bytes of which nothing is known, to everything that reads bytes: whatever they are, nothing may panic or take more than it is
//! given. Shared by the laws, the fuzz targets and the test that plays their corpora.

use bytes::Bytes;
use mainstay::wire::messages::rpc::{HeartbeatWorker, RegisterClient, RegisterWorker};
use mainstay::wire::messages::{FromClient, FromWorker, Request, ToClient, ToWorker};
use mainstay::wire::{FrameDecoder, Handshake, Limits, Message, Value};

/// Feeds bytes in pieces; the decoder never holds more than it was given.
pub(crate) fn feed(limits: Limits, bytes: &[u8], piece: usize) {
    let mut decoder = FrameDecoder::new(limits);
    let mut fed = 0;
    for part in bytes.chunks(piece.max(1)) {
        decoder.buffer().extend_from_slice(part);
        fed += part.len();
        loop {
            match decoder.poll() {
                Ok(Some(message)) => {
                    let held: usize = message.frames.iter().map(Bytes::len).sum();
                    assert!(held <= fed);
                    read_in_every_way(&message);
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(decoder.buffered() <= fed);
        assert!(decoder.buffer().capacity() <= 2 * fed + 64);
    }
}

/// Hands a message to everything that reads messages.
pub(crate) fn read_in_every_way(message: &Message) {
    let _ = Value::decode(message);
    let _ = Handshake::decode(message);
    let _ = FromWorker::decode_batch(message);
    let _ = FromClient::decode_batch(message);
    let _ = ToWorker::decode_batch(message);
    let _ = ToClient::decode_batch(message);
    if let Ok(request) = Request::decode(message.clone()) {
        let _ = RegisterWorker::read(&request);
        let _ = RegisterClient::read(&request);
        let _ = HeartbeatWorker::read(&request);
        let _ = request.release();
        let fields = request.fields();
        let _ = (fields.optional_keys("keys"), fields.by_key("data"), fields.topics(), fields.pickled("function"));
    }
}

/// A connection: two bytes say under which limits, and how many bytes arrive at a time.
#[allow(dead_code, reason = "each fuzz target is one of these")]
pub(crate) fn connect(bytes: &[u8]) {
    let [limits, piece, bytes @ ..] = bytes else { return };
    let limits = [Limits::HANDSHAKE, Limits::UNREGISTERED, Limits::REGISTERED][usize::from(limits % 3)];
    feed(limits, bytes, usize::from(*piece));
}

/// A message: two bytes say how long its document is, and what follows that is the frame that it may refer to.
#[allow(dead_code, reason = "each fuzz target is one of these")]
pub(crate) fn say(bytes: &[u8]) {
    let [low, high, bytes @ ..] = bytes else { return };
    let length = usize::from(u16::from_le_bytes([*low, *high])).min(bytes.len());
    let (document, frame) = bytes.split_at(length);
    read_in_every_way(&Message { frames: [document, frame].map(Bytes::copy_from_slice).to_vec() });
}
