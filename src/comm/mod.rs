//! Sockets: Dask comms over TCP or TLS, with handshake, limits and one bounded outbox a connection.
//!
//! Knows messages only as frames; what they mean is `server`'s. Never holds up a reader for a slow writer: an outbox
//! that grows too long closes its comm. Nothing is written while a fence is not open.

mod budget;
mod connection;
mod dial;
mod fence;
mod outbox;
mod tls;

pub use budget::Budget;
pub use connection::{CommError, Connection, Receiver, Sender};
pub use dial::{CallError, Pool, scheme};
pub use fence::{Boottime, Fence};
pub use outbox::{Outbox, OutboxFull};
pub use tls::{Credentials, CredentialsError, Tls};
