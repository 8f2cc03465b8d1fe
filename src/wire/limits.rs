//! What a peer may make us hold. Every limit has a name here.

/// Before the handshake is done: it takes 66 bytes.
pub const HANDSHAKE_BYTES_MAX: u64 = 64 * 1024;
/// Before a peer registered as a worker or a Client.
pub const UNREGISTERED_BYTES_MAX: u64 = 1024 * 1024;
/// One frame of a registered peer. Dask cuts values into shards of 64 MiB (`distributed.comm.shard`), but the graph that a
/// Client hands in is one pickle in one frame: some 70 bytes a task and more.
pub const FRAME_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// One message of a registered peer, unless the caller says otherwise: scattered data and gathered results pass here.
pub const MESSAGE_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;
/// Frames of one message before registration: nothing but documents passes.
pub const UNREGISTERED_FRAMES_MAX: usize = 64;
/// Frames of one message: two or more for each value that a Client scatters at once, four for each task that failed.
pub const FRAMES_MAX: usize = 64 * 1024;

/// How deep arrays and maps may nest: as deep as msgpack for Python writes. Profiles take two levels for each frame of a stack.
pub const DEPTH_MAX: usize = 512;
/// Array elements, map keys and map values in one document. A million keys may be asked for, or released, at once: up to
/// five elements each, with some room.
pub const ELEMENTS_MAX: usize = 8_000_000;
/// The same where a whole tree of them is built.
pub const TREE_ELEMENTS_MAX: usize = 1_000_000;

/// A pickle of plain data, and the data that it makes, roughly in bytes.
pub const PLAIN_PICKLE_BYTES_MAX: usize = 1024 * 1024;

/// The text of an exception, in bytes, as it goes into status, events and logs.
pub const EXCEPTION_TEXT_BYTES_MAX: usize = 1024;
/// The text of a traceback, in bytes.
pub const TRACEBACK_TEXT_BYTES_MAX: usize = 16 * 1024;

/// What the frame decoder accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    pub frame_bytes_max: u64,
    pub message_bytes_max: u64,
    pub frames_max: usize,
}

impl Limits {
    /// For the first message of a comm.
    pub const HANDSHAKE: Self = Self {
        frame_bytes_max: HANDSHAKE_BYTES_MAX,
        message_bytes_max: HANDSHAKE_BYTES_MAX,
        frames_max: UNREGISTERED_FRAMES_MAX,
    };
    /// Until the peer is known as a worker or a Client.
    pub const UNREGISTERED: Self = Self {
        frame_bytes_max: UNREGISTERED_BYTES_MAX,
        message_bytes_max: UNREGISTERED_BYTES_MAX,
        frames_max: UNREGISTERED_FRAMES_MAX,
    };
    /// From then on.
    pub const REGISTERED: Self =
        Self { frame_bytes_max: FRAME_BYTES_MAX, message_bytes_max: MESSAGE_BYTES_MAX, frames_max: FRAMES_MAX };
}
