//! The first message of each side of a comm.
//!
//! Both write theirs and then read the other's; there is no answer to it.
//!
//! Source: distributed 2026.8.0, comm/core.py: `Comm.handshake_info`, `Comm.handshake_configuration`.

use bytes::Bytes;
use thiserror::Error;

use super::document::DocumentError;
use super::frame::Message;
use super::value::Value;

/// The newest pickle protocol that all supported Pythons have.
const PICKLE_PROTOCOL: u64 = 5;

/// What a peer says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// What it would compress with. Ours is none, so nothing is compressed towards us.
    pub compression: Option<String>,
    pub python: Vec<u64>,
    pub pickle_protocol: u64,
}

/// Why a peer is no Dask peer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum HandshakeError {
    #[error("failed to read the handshake")]
    Document(#[from] DocumentError),
    #[error("the handshake lacks `{field}`, or it is of the wrong type")]
    Field { field: &'static str },
}

impl Handshake {
    /// Ours. `python` must be there, but peers do not check it.
    pub fn ours() -> Self {
        Self { compression: None, python: vec![3, 11, 0], pickle_protocol: PICKLE_PROTOCOL }
    }

    /// # Errors
    /// When the message is no handshake.
    pub fn decode(message: &Message) -> Result<Self, HandshakeError> {
        let map = Value::decode(message)?;
        let field = |field| map.get(field).ok_or(HandshakeError::Field { field });
        let compression = match field("compression")? {
            Value::Nil => None,
            Value::Text(text) => Some(text.clone()),
            _ => return Err(HandshakeError::Field { field: "compression" }),
        };
        let unsigned = |value: &Value| value.as_integer().and_then(|integer| u64::try_from(integer).ok());
        let python = field("python")?
            .as_elements()
            .and_then(|numbers| numbers.iter().map(unsigned).collect())
            .ok_or(HandshakeError::Field { field: "python" })?;
        let pickle_protocol = unsigned(field("pickle-protocol")?).ok_or(HandshakeError::Field { field: "pickle-protocol" })?;
        Ok(Self { compression, python, pickle_protocol })
    }

    /// The chunks to write.
    pub fn encode(&self) -> Vec<Bytes> {
        Value::map([
            ("compression", self.compression.as_deref().into()),
            ("python", self.python.clone().into()),
            ("pickle-protocol", self.pickle_protocol.into()),
        ])
        .encode()
    }
}
