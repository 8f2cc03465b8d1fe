//! Messages as the bytes that they are on the wire, and back.

use bytes::{Bytes, BytesMut};
use mainstay::wire::{Encode, FrameDecoder, Limits, Message, encode_batch};

pub(crate) fn joined(chunks: Vec<Bytes>) -> Bytes {
    let mut all = BytesMut::new();
    chunks.iter().for_each(|chunk| all.extend_from_slice(chunk));
    all.freeze()
}

pub(crate) fn encoded<T: Encode>(messages: &[T]) -> Bytes {
    joined(encode_batch(messages))
}

/// The one message that these bytes are, as the decoder of frames gives it.
pub(crate) fn framed(bytes: &Bytes) -> Message {
    let mut decoder = FrameDecoder::new(Limits::REGISTERED);
    decoder.buffer().extend_from_slice(bytes);
    let message = decoder.poll().expect("within limits").expect("a whole message");
    assert_eq!(decoder.buffered(), 0, "one message");
    message
}
