//! One comm: a socket that gives whole messages.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use socket2::{SockRef, TcpKeepalive};
use thiserror::Error;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use crate::wire::frame::{FrameDecoder, FrameError, Message};
use crate::wire::handshake::{Handshake, HandshakeError};
use crate::wire::limits::Limits;

/// A silent network is given up after this time, on both directions.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(20);
const TCP_KEEPALIVE: Duration = Duration::from_secs(10);
/// A peer inside a message must send at least `BYTES_A_SECOND_MIN`, judged after this time.
const SLOW_AFTER: Duration = Duration::from_secs(30);
const BYTES_A_SECOND_MIN: u64 = 1024;
/// How much is read at once when nothing is known of the message.
const READ_BYTES: usize = 64 * 1024;

/// Why a comm ended before its peer said so.
#[derive(Debug, Error)]
pub enum CommError {
    #[error("failed to connect")]
    Connect(#[source] std::io::Error),
    #[error("no connection within {} s", .0.as_secs())]
    ConnectTimeout(Duration),
    #[error("no handshake within {} s", .0.as_secs())]
    HandshakeTimeout(Duration),
    #[error("bad handshake")]
    Handshake(#[from] HandshakeError),
    #[error("the comm failed")]
    Io(#[from] std::io::Error),
    #[error("bad framing")]
    Frame(#[from] FrameError),
    #[error("the peer closed in the middle of a message")]
    Truncated,
    #[error("the peer sends a message at less than {BYTES_A_SECOND_MIN} B/s")]
    Slow,
}

/// A comm after its handshake.
#[derive(Debug)]
pub struct Connection {
    pub receiver: Receiver,
    pub sender: Sender,
    pub peer: SocketAddr,
}

/// The reading half.
#[derive(Debug)]
pub struct Receiver {
    half: OwnedReadHalf,
    decoder: FrameDecoder,
}

/// The writing half.
#[derive(Debug)]
pub struct Sender {
    half: OwnedWriteHalf,
}

impl Connection {
    /// Shakes hands on a fresh socket, whoever opened it.
    ///
    /// # Errors
    /// When the peer speaks no Dask, or not in time.
    pub async fn establish(stream: TcpStream, patience: Duration) -> Result<Self, CommError> {
        let peer = stream.peer_addr()?;
        configure(&stream)?;
        let (read, write) = stream.into_split();
        let mut connection = Self {
            receiver: Receiver { half: read, decoder: FrameDecoder::new(Limits::HANDSHAKE) },
            sender: Sender { half: write },
            peer,
        };
        timeout(patience, connection.shake_hands()).await.map_err(|_| CommError::HandshakeTimeout(patience))??;
        connection.receiver.set_limits(Limits::UNREGISTERED);
        Ok(connection)
    }

    async fn shake_hands(&mut self) -> Result<(), CommError> {
        self.sender.send(Handshake::ours().encode()).await?;
        let message = self.receiver.receive().await?.ok_or(CommError::Truncated)?;
        Handshake::decode(&message)?;
        Ok(())
    }
}

fn configure(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(TCP_KEEPALIVE).with_interval(TCP_KEEPALIVE / 5))?;
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(TCP_USER_TIMEOUT))?;
    Ok(())
}

impl Receiver {
    /// Takes effect with the next message.
    pub fn set_limits(&mut self, limits: Limits) {
        self.decoder.set_limits(limits);
    }

    /// The next message; `None` when the peer has closed between messages.
    ///
    /// Dropping the future loses nothing: what arrived stays in the decoder.
    ///
    /// # Errors
    /// When the socket fails, the framing is bad or the peer is too slow inside a message.
    pub async fn receive(&mut self) -> Result<Option<Message>, CommError> {
        let started = Instant::now();
        let before = self.decoder.buffered();
        loop {
            if let Some(message) = self.decoder.poll()? {
                return Ok(Some(message));
            }
            let is_in_message = self.decoder.is_in_message();
            let read = async {
                self.decoder.buffer().reserve(READ_BYTES);
                self.half.read_buf(self.decoder.buffer()).await
            };
            let count = if is_in_message { timeout(SLOW_AFTER, read).await.map_err(|_| CommError::Slow)?? } else { read.await? };
            if count == 0 {
                return if self.decoder.is_in_message() { Err(CommError::Truncated) } else { Ok(None) };
            }
            let elapsed = started.elapsed();
            let arrived = self.decoder.buffered().saturating_sub(before) as u64;
            if is_in_message && elapsed > SLOW_AFTER && arrived / elapsed.as_secs().max(1) < BYTES_A_SECOND_MIN {
                return Err(CommError::Slow);
            }
        }
    }
}

impl Sender {
    /// Writes the chunks of one or more messages.
    ///
    /// # Errors
    /// When the socket fails.
    pub async fn send(&mut self, chunks: Vec<Bytes>) -> Result<(), CommError> {
        for mut chunk in chunks {
            while chunk.has_remaining() {
                self.half.write_buf(&mut chunk).await?;
            }
        }
        Ok(())
    }
}
