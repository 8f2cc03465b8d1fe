//! Writes one message: its document, and the frames that the document refers to.

use bytes::Bytes;

use super::frame::{BIG_FRAME, Frames};
use super::opaque::{PICKLED_TAIL, Pickled, write_pickled_head};
use super::pickle::{write_after_blob, write_up_to_blob};
use super::value::Value;
use crate::dask::{RunSpec, Serialized, TaskKey};

/// Puts a message together piece by piece.
///
/// The caller announces each array's and map's length and then writes that many elements.
#[derive(Debug, Default)]
pub struct Encoder {
    document: Vec<u8>,
    frames: Frames,
    /// What is around a blob, while it is put together.
    scratch: Vec<u8>,
}

/// What can be an element of a batch or a message alone.
pub trait Encode {
    fn encode(&self, encoder: &mut Encoder);
}

/// The chunks of a message of one item, as RPCs send it.
pub fn encode_message(item: &impl Encode) -> Vec<Bytes> {
    let mut encoder = Encoder::new();
    item.encode(&mut encoder);
    encoder.finish()
}

/// The chunks of one message with all these items, as streams send them.
pub fn encode_batch<'a, T: Encode + 'a>(items: impl IntoIterator<Item = &'a T, IntoIter: ExactSizeIterator>) -> Vec<Bytes> {
    let items = items.into_iter();
    let mut encoder = Encoder::new();
    encoder.array(items.len());
    for item in items {
        item.encode(&mut encoder);
    }
    encoder.finish()
}

/// The messages of one turn for one peer, encoded as they come.
#[derive(Debug, Default)]
pub struct Batch {
    encoder: Encoder,
    items: u32,
}

/// The head of an array whose length is filled in at the end: `array 32`.
const OPEN_ARRAY: [u8; 5] = [0xdd, 0, 0, 0, 0];

/// A batch of more messages is sent to a slow peer as well.
const BATCH_ITEMS_MAX: u32 = 10_000;
/// Room for a few messages.
const DOCUMENT_ROOM: usize = 4 * 1024;

impl Batch {
    pub fn is_empty(&self) -> bool {
        self.items == 0
    }

    /// Whether it is better sent than added to, even if the peer is slow.
    pub fn is_full(&self) -> bool {
        self.items >= BATCH_ITEMS_MAX
    }

    /// Adds one message.
    pub fn push(&mut self, item: &impl Encode) {
        if self.is_empty() {
            self.encoder.document.reserve(DOCUMENT_ROOM);
            self.encoder.encoded(&OPEN_ARRAY);
        }
        self.items += 1;
        item.encode(&mut self.encoder);
    }

    /// The chunks to write to the socket, in order; leaves an empty batch.
    pub fn take(&mut self) -> Vec<Bytes> {
        let Self { mut encoder, items } = std::mem::take(self);
        encoder.document[1..OPEN_ARRAY.len()].copy_from_slice(&items.to_be_bytes());
        encoder.finish()
    }
}

// Writing to a Vec cannot fail, so what `rmp` returns is dropped throughout.
impl Encoder {
    pub fn new() -> Self {
        Self::default()
    }

    /// The chunks to write to the socket, in order.
    pub fn finish(self) -> Vec<Bytes> {
        self.frames.into_chunks(self.document)
    }

    /// The document alone, of a value that needs no other frame.
    pub fn into_document(self) -> Vec<u8> {
        self.document
    }

    /// Pieces that are encoded already: what is the same in every message of a kind.
    pub fn encoded(&mut self, pieces: &[u8]) {
        self.document.extend_from_slice(pieces);
    }

    pub fn nil(&mut self) {
        let _ = rmp::encode::write_nil(&mut self.document);
    }

    pub fn boolean(&mut self, boolean: bool) {
        let _ = rmp::encode::write_bool(&mut self.document, boolean);
    }

    pub fn integer(&mut self, integer: i64) {
        let _ = rmp::encode::write_sint(&mut self.document, integer);
    }

    pub fn unsigned(&mut self, integer: u64) {
        let _ = rmp::encode::write_uint(&mut self.document, integer);
    }

    pub fn float(&mut self, float: f64) {
        let _ = rmp::encode::write_f64(&mut self.document, float);
    }

    /// A number that Dask writes as an integer when it is whole.
    pub fn number(&mut self, number: f64) {
        let whole = number as i64;
        if whole as f64 == number && whole.unsigned_abs() < 1 << 53 {
            self.integer(whole);
        } else {
            self.float(number);
        }
    }

    pub fn text(&mut self, text: &str) {
        let _ = rmp::encode::write_str(&mut self.document, text);
    }

    pub fn optional_text(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.text(text),
            None => self.nil(),
        }
    }

    pub fn binary(&mut self, binary: &[u8]) {
        let _ = rmp::encode::write_bin(&mut self.document, binary);
    }

    /// The head of a binary of `length` bytes, which follow.
    pub fn binary_head(&mut self, length: usize) {
        let _ = rmp::encode::write_bin_len(&mut self.document, length as u32);
    }

    /// The head of an array of `length` elements.
    pub fn array(&mut self, length: usize) {
        let _ = rmp::encode::write_array_len(&mut self.document, length as u32);
    }

    /// The head of a map of `length` entries.
    pub fn map(&mut self, length: usize) {
        let _ = rmp::encode::write_map_len(&mut self.document, length as u32);
    }

    pub fn key(&mut self, key: &TaskKey) {
        self.encoded(key.as_msgpack());
    }

    pub fn keys(&mut self, keys: &[TaskKey]) {
        self.array(keys.len());
        for key in keys {
            self.key(key);
        }
    }

    pub fn value(&mut self, value: &Value) {
        match value {
            Value::Nil => self.nil(),
            Value::Boolean(boolean) => self.boolean(*boolean),
            Value::Integer(integer) => self.integer(*integer),
            Value::Unsigned(integer) => self.unsigned(*integer),
            Value::Float(float) => self.float(*float),
            Value::Text(text) => self.text(text),
            Value::Binary(binary) => self.binary(binary),
            Value::Array(elements) => self.values(elements),
            Value::Map(entries) => {
                self.map(entries.len());
                for (key, value) in entries {
                    self.value(key);
                    self.value(value);
                }
            }
            Value::Set(elements) => {
                self.map(2);
                self.text("__Set__");
                self.boolean(true);
                self.text("as-list");
                self.values(elements);
            }
            Value::Serialized(serialized) => self.serialized(serialized),
            Value::Pickled(pickled) => self.pickled(pickled),
        }
    }

    fn values(&mut self, elements: &[Value]) {
        self.array(elements.len());
        for element in elements {
            self.value(element);
        }
    }

    /// A value in frames of its own, read when someone asks for it.
    pub fn serialized(&mut self, serialized: &Serialized) {
        self.marker(b"\x81\xae__Serialized__");
        self.append_frames(&serialized.header, &serialized.frames);
    }

    /// A value that the reader unpickles at once.
    pub fn pickled(&mut self, pickled: &Pickled) {
        self.marker(b"\x81\xab__Pickled__");
        self.append_frames(&pickled.header, &pickled.buffers);
    }

    /// How to run a task, which the worker unpickles at once. `dependencies` in the order in which the run spec numbers them.
    pub fn run_spec<'k>(
        &mut self,
        run_spec: &RunSpec,
        key: &TaskKey,
        imports: Option<&str>,
        dependencies: impl ExactSizeIterator<Item = &'k TaskKey>,
    ) {
        self.marker(b"\x81\xab__Pickled__");
        let mut around = std::mem::take(&mut self.scratch);
        around.clear();
        let mut split = 0;
        if let Some(form) = run_spec.form() {
            write_up_to_blob(&mut around, form, key, imports, run_spec.blob().len());
            split = around.len();
            write_after_blob(&mut around, form, imports.is_some(), dependencies);
        }
        self.pickled_around(&around[..split], run_spec, &around[split..]);
        self.scratch = around;
    }

    /// The frame of a pickle in three parts.
    fn pickled_around(&mut self, before: &[u8], run_spec: &RunSpec, after: &[u8]) {
        self.frames.begin();
        write_pickled_head(self.frames.small(), before.len() + run_spec.blob().len() + after.len());
        self.frames.small().extend_from_slice(before);
        if run_spec.blob().len() < BIG_FRAME {
            self.frames.small().extend_from_slice(run_spec.blob());
        } else {
            self.frames.append(&run_spec.shared_blob());
        }
        self.frames.small().extend_from_slice(after);
        self.frames.small().extend_from_slice(PICKLED_TAIL);
    }

    fn append_frames(&mut self, header: &Bytes, frames: &[Bytes]) {
        for frame in std::iter::once(header).chain(frames) {
            self.frames.begin();
            self.frames.append(frame);
        }
    }

    /// A map of one name: the number of the frame that comes next.
    fn marker(&mut self, head: &[u8]) {
        self.encoded(head);
        // Frame 0 is the document.
        self.unsigned(1 + self.frames.len() as u64);
    }
}

impl Encode for Value {
    fn encode(&self, encoder: &mut Encoder) {
        encoder.value(self);
    }
}
