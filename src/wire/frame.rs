//! Where one message ends and the next begins, within limits.
//!
//! Does no I/O: bytes go in as they arrive, messages come out. Never allocates from a length that a peer announced.
//!
//! All integers are little-endian `u64`. `N` counts the bytes from `nframes` up to the end of some frame; it only
//! tells a Python reader how much to read into one buffer, the rest follows back to back all the same:
//!
//! ```text
//! N | nframes | length of each frame … | frame 0 (msgpack) | frame 1 | …
//! ```
//!
//! Source: distributed 2026.8.0, comm/tcp.py: `TCP.read`, `TCP.write`; protocol/utils.py: `pack_frames_prelude`.

use bytes::{Buf as _, Bytes, BytesMut};
use thiserror::Error;

use super::limits::Limits;

/// Frames of this size are handed out as buffers of their own, so that each can be freed when it is no longer needed,
/// and are sent without being copied.
pub(super) const BIG_FRAME: usize = 64 * 1024;

/// How many bytes one length takes.
const WORD: usize = 8;

/// One message as it came: frame 0 is the msgpack document, the others are what it refers to by number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub frames: Vec<Bytes>,
}

/// Why a comm's bytes are no messages. The comm cannot be used any more.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FrameError {
    #[error("a message has {found} frames, more than {max}")]
    TooManyFrames { found: u64, max: usize },
    #[error("a message has no frame at all")]
    NoFrame,
    #[error("a frame of {found} bytes is announced, more than {max}")]
    FrameTooLong { found: u64, max: u64 },
    #[error("a message of {found} bytes is announced, more than {max}")]
    MessageTooLong { found: u64, max: u64 },
    #[error("the first {found} bytes of a message do not end where a frame ends")]
    Misaligned { found: u64 },
}

/// Takes in bytes and gives out messages.
///
/// Append what arrives to [`FrameDecoder::buffer`], then call [`FrameDecoder::poll`] until it gives `None`.
#[derive(Debug)]
pub struct FrameDecoder {
    limits: Limits,
    buffer: BytesMut,
    /// The message under way, once all its lengths are known.
    partial: Option<Partial>,
}

#[derive(Debug)]
struct Partial {
    lengths: Vec<usize>,
    /// The frames that are complete: the first ones of `lengths`.
    frames: Vec<Bytes>,
    /// How many bytes `frames` hold.
    taken: usize,
}

impl FrameDecoder {
    pub fn new(limits: Limits) -> Self {
        Self { limits, buffer: BytesMut::new(), partial: None }
    }

    /// Takes effect with the next message.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Where arriving bytes are appended. Reserve only what a read can fill.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// How many bytes arrived and were not given out.
    pub fn buffered(&self) -> usize {
        self.buffer.len() + self.partial.as_ref().map_or(0, |partial| partial.taken)
    }

    /// Whether the peer is in the middle of a message: then the comm must not end here.
    pub fn is_in_message(&self) -> bool {
        self.buffered() > 0 || self.partial.is_some()
    }

    /// Gives the next whole message; `None` when more bytes must arrive first.
    ///
    /// # Errors
    /// When the peer announces more than the limits allow, as soon as the number is there.
    pub fn poll(&mut self) -> Result<Option<Message>, FrameError> {
        if self.partial.is_none() {
            self.partial = self.read_prelude()?;
        }
        let Some(partial) = &mut self.partial else { return Ok(None) };
        while let Some(&length) = partial.lengths.get(partial.frames.len()) {
            if self.buffer.len() < length {
                return Ok(None);
            }
            partial.frames.push(self.buffer.split_to(length).freeze());
            partial.taken += length;
        }
        Ok(self.partial.take().map(|partial| Message { frames: partial.frames }))
    }

    fn read_prelude(&mut self) -> Result<Option<Partial>, FrameError> {
        let Some(first_read) = self.word(0) else { return Ok(None) };
        if first_read > self.limits.message_bytes_max {
            return Err(FrameError::MessageTooLong { found: first_read, max: self.limits.message_bytes_max });
        }
        let Some(announced) = self.word(1) else { return Ok(None) };
        if announced == 0 {
            return Err(FrameError::NoFrame);
        }
        let count = usize::try_from(announced).ok().filter(|count| *count <= self.limits.frames_max);
        let Some(count) = count else {
            return Err(FrameError::TooManyFrames { found: announced, max: self.limits.frames_max });
        };
        // Lengths are judged as they come: a peer that announces too much is closed before it sends it.
        let arrived = (self.buffer.len() / WORD - 2).min(count);
        let mut end = ((1 + count) * WORD) as u64;
        let mut is_aligned = first_read == end;
        for index in 0..arrived {
            let length = self.word(2 + index).unwrap_or_default();
            if length > self.limits.frame_bytes_max {
                return Err(FrameError::FrameTooLong { found: length, max: self.limits.frame_bytes_max });
            }
            end += length;
            if end > self.limits.message_bytes_max {
                return Err(FrameError::MessageTooLong { found: end, max: self.limits.message_bytes_max });
            }
            is_aligned |= first_read == end;
        }
        if arrived < count {
            return Ok(None);
        }
        if !is_aligned {
            return Err(FrameError::Misaligned { found: first_read });
        }
        // Each is at most `frame_bytes_max`, which fits.
        let lengths = (0..count).map(|index| self.word(2 + index).unwrap_or_default() as usize).collect();
        self.buffer.advance((2 + count) * WORD);
        Ok(Some(Partial { lengths, frames: Vec::with_capacity(count), taken: 0 }))
    }

    fn word(&self, index: usize) -> Option<u64> {
        let bytes = self.buffer.get(index * WORD..(index + 1) * WORD)?;
        Some(u64::from_le_bytes(bytes.try_into().ok()?))
    }
}

/// Puts a message's frames into the chunks to be written, in order.
///
/// Small frames are copied together, big ones passed on as they are and left out of `N`, so that a Python reader gives
/// each a buffer of its own.
pub fn encode_frames(frames: &[Vec<Bytes>]) -> Vec<Bytes> {
    let lengths: Vec<usize> = frames.iter().map(|parts| parts.iter().map(Bytes::len).sum()).collect();
    let leading = lengths.iter().take_while(|length| **length < BIG_FRAME).count().max(1);
    let first_read = (1 + frames.len()) * WORD + lengths.iter().take(leading).sum::<usize>();

    let mut chunks = Vec::new();
    let mut open = BytesMut::with_capacity((2 + frames.len()) * WORD);
    for word in [first_read, frames.len()].into_iter().chain(lengths) {
        open.extend_from_slice(&(word as u64).to_le_bytes());
    }
    for part in frames.iter().flatten() {
        if part.len() < BIG_FRAME {
            open.extend_from_slice(part);
        } else {
            if !open.is_empty() {
                chunks.push(open.split().freeze());
            }
            chunks.push(part.clone());
        }
    }
    if !open.is_empty() {
        chunks.push(open.freeze());
    }
    chunks
}
