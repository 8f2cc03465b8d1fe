//! Bytes to Dask messages and back, within limits.
//!
//! Does no I/O and never looks into a pickle that a peer made, but to read plain data. What a peer sends can make it
//! return an error, never panic.
//!
//! ```text
//! bytes ─► frame ─► Message ─► document ─► messages, Value         opaque: values in frames of their own
//! chunks ◄─ frame ◄─────────── encode ◄─── messages, Value         pickle: the few pickles that we make
//! ```

pub mod document;
pub mod encode;
mod encoded_keys;
mod fields;
pub mod frame;
pub mod handshake;
pub mod limits;
pub mod messages;
pub mod msgpack;
pub mod opaque;
pub mod pickle;
pub mod release;
pub mod text;
pub mod value;

pub use document::{DocumentError, Fields};
pub use encode::{Batch, Encode, Encoder, encode_batch, encode_message};
pub use encoded_keys::EncodedKeys;
pub use frame::{FrameDecoder, FrameError, Message};
pub use handshake::{Handshake, HandshakeError};
pub use limits::Limits;
pub use opaque::Pickled;
pub use release::{Release, ReleaseError};
pub use value::Value;
