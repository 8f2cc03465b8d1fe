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

/// Frames from this size on are sent without being copied.
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
    state: State,
}

/// How far the message under way is.
#[derive(Debug)]
enum State {
    /// `N` and `nframes` come next.
    Head,
    Lengths(Prelude),
    Frames(Partial),
}

#[derive(Debug)]
struct Prelude {
    first_read: u64,
    count: usize,
    /// Where the frames known so far end, counted as `N` counts.
    end: u64,
    /// Whether a frame, or the prelude, ends where `N` says.
    is_aligned: bool,
    lengths: Vec<usize>,
}

#[derive(Debug)]
struct Partial {
    lengths: Vec<usize>,
    /// The frames that are complete: the first ones of `lengths`.
    frames: Vec<Bytes>,
    /// How many bytes of the message were taken from the buffer.
    taken: usize,
}

impl FrameDecoder {
    pub fn new(limits: Limits) -> Self {
        Self { limits, buffer: BytesMut::new(), state: State::Head }
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
        let behind = match &self.state {
            State::Head => 0,
            State::Lengths(prelude) => (2 + prelude.lengths.len()) * WORD,
            State::Frames(partial) => partial.taken,
        };
        self.buffer.len() + behind
    }

    /// Whether the peer is in the middle of a message: then the comm must not end here.
    pub fn is_in_message(&self) -> bool {
        !self.buffer.is_empty() || !matches!(self.state, State::Head)
    }

    /// Gives the next whole message; `None` when more bytes must arrive first.
    ///
    /// # Errors
    /// When the peer announces more than the limits allow, as soon as the number is there.
    pub fn poll(&mut self) -> Result<Option<Message>, FrameError> {
        loop {
            match &mut self.state {
                State::Head => {
                    let Some(prelude) = read_head(&mut self.buffer, &self.limits)? else { return Ok(None) };
                    self.state = State::Lengths(prelude);
                }
                State::Lengths(prelude) => {
                    if !prelude.read(&mut self.buffer, &self.limits)? {
                        return Ok(None);
                    }
                    let lengths = std::mem::take(&mut prelude.lengths);
                    let frames = Vec::with_capacity(lengths.len());
                    let taken = (2 + lengths.len()) * WORD;
                    self.state = State::Frames(Partial { lengths, frames, taken });
                }
                State::Frames(partial) => {
                    if !partial.read(&mut self.buffer) {
                        return Ok(None);
                    }
                    let frames = std::mem::take(&mut partial.frames);
                    if self.buffer.is_empty() {
                        // Its allocation is that of the message, and would be kept after the message is gone.
                        self.buffer = BytesMut::new();
                    }
                    self.state = State::Head;
                    return Ok(Some(Message { frames }));
                }
            }
        }
    }
}

/// Reads `N` and `nframes`.
fn read_head(buffer: &mut BytesMut, limits: &Limits) -> Result<Option<Prelude>, FrameError> {
    // `N` alone is judged already: most of what is no Dask peer ends here.
    let Some(first_read) = peek_word(buffer) else { return Ok(None) };
    if first_read > limits.message_bytes_max {
        return Err(FrameError::MessageTooLong { found: first_read, max: limits.message_bytes_max });
    }
    let Some(announced) = buffer.get(WORD..).and_then(peek_word) else { return Ok(None) };
    if announced == 0 {
        return Err(FrameError::NoFrame);
    }
    let count = usize::try_from(announced)
        .ok()
        .filter(|count| *count <= limits.frames_max)
        .ok_or(FrameError::TooManyFrames { found: announced, max: limits.frames_max })?;
    buffer.advance(2 * WORD);
    let end = ((1 + count) * WORD) as u64;
    Ok(Some(Prelude { first_read, count, end, is_aligned: first_read == end, lengths: Vec::new() }))
}

impl Prelude {
    /// Reads the lengths that arrived; whether these were all. Each is judged as it comes, so a peer that announces too
    /// much is refused before it sends it.
    fn read(&mut self, buffer: &mut BytesMut, limits: &Limits) -> Result<bool, FrameError> {
        while self.lengths.len() < self.count {
            let Some(length) = peek_word(buffer) else { return Ok(false) };
            buffer.advance(WORD);
            if length > limits.frame_bytes_max {
                return Err(FrameError::FrameTooLong { found: length, max: limits.frame_bytes_max });
            }
            self.end += length;
            if self.end > limits.message_bytes_max {
                return Err(FrameError::MessageTooLong { found: self.end, max: limits.message_bytes_max });
            }
            self.is_aligned |= self.first_read == self.end;
            // At most `frame_bytes_max`, which any `usize` can hold.
            self.lengths.push(length as usize);
        }
        if self.is_aligned { Ok(true) } else { Err(FrameError::Misaligned { found: self.first_read }) }
    }
}

impl Partial {
    /// Takes the frames that arrived whole; whether these were all.
    fn read(&mut self, buffer: &mut BytesMut) -> bool {
        while let Some(&length) = self.lengths.get(self.frames.len()) {
            if buffer.len() < length {
                return false;
            }
            self.frames.push(buffer.split_to(length).freeze());
            self.taken += length;
        }
        true
    }
}

fn peek_word(buffer: &[u8]) -> Option<u64> {
    buffer.first_chunk::<WORD>().map(|bytes| u64::from_le_bytes(*bytes))
}

/// The frames after the document of a message that is being written.
///
/// Small pieces are copied one after the other into one buffer, big ones passed on as they are.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// Where each frame begins, in bytes after the document.
    starts: Vec<usize>,
    /// All pieces but the big ones.
    copied: Vec<u8>,
    /// Each with the place in `copied` before which it comes.
    big: Vec<(usize, Bytes)>,
    big_length: usize,
}

/// Room for the frames of a few tasks.
const FRAMES_ROOM: usize = 8 * 1024;

impl Frames {
    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    /// Begins the next frame; its pieces follow.
    pub(super) fn begin(&mut self) {
        if self.starts.is_empty() {
            self.copied.reserve(FRAMES_ROOM);
        }
        self.starts.push(self.length());
    }

    /// Where small pieces are appended.
    pub(super) fn small(&mut self) -> &mut Vec<u8> {
        &mut self.copied
    }

    /// Appends a piece, without a copy if it is big.
    pub(super) fn append(&mut self, piece: &Bytes) {
        if piece.len() < BIG_FRAME {
            self.copied.extend_from_slice(piece);
        } else {
            self.big.push((self.copied.len(), piece.clone()));
            self.big_length += piece.len();
        }
    }

    /// The chunks of the whole message, in order.
    ///
    /// Big frames are left out of `N`, so that a Python reader gives each a buffer of its own.
    pub(super) fn into_chunks(self, document: Vec<u8>) -> Vec<Bytes> {
        let ends = self.starts.iter().skip(1).copied().chain([self.length()]);
        let lengths = self.starts.iter().zip(ends).map(|(start, end)| end - start);
        let is_document_big = document.len() >= BIG_FRAME;
        let leading: usize = lengths.clone().take_while(|length| *length < BIG_FRAME && !is_document_big).sum();
        let count = 1 + self.len();
        let first_read = (1 + count) * WORD + document.len() + leading;
        let mut prelude = Vec::with_capacity((2 + count) * WORD);
        for word in [first_read, count, document.len()].into_iter().chain(lengths) {
            prelude.extend_from_slice(&(word as u64).to_le_bytes());
        }

        let mut chunks = vec![prelude.into(), document.into()];
        let mut copied = Bytes::from(self.copied);
        let mut taken = 0;
        for (place, piece) in self.big {
            chunks.push(copied.split_to(place - taken));
            taken = place;
            chunks.push(piece);
        }
        chunks.push(copied);
        chunks.retain(|chunk| !chunk.is_empty());
        chunks
    }

    fn length(&self) -> usize {
        self.copied.len() + self.big_length
    }
}
