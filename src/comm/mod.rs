//! Sockets: Dask comms over TCP, with handshake, limits and one bounded outbox a connection.
//!
//! Knows messages only as frames; what they mean is `server`'s. Never holds up a reader for a slow writer: an outbox
//! that grows too long closes its comm.

mod connection;
mod dial;
mod outbox;

pub use connection::{CommError, Connection, Receiver, Sender};
pub use dial::{CallError, Pool};
pub use outbox::{Outbox, OutboxFull};
