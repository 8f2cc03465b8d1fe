//! One comm: a socket that gives whole messages.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use socket2::{SockRef, TcpKeepalive};
use thiserror::Error;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use crate::comm::budget::{Budget, Share};
use crate::comm::fence::Fence;
use crate::comm::tls::{Session, Tls};
use crate::wire::frame::{FrameDecoder, FrameError, Message};
use crate::wire::handshake::{Handshake, HandshakeError};
use crate::wire::limits::Limits;

/// A silent network is given up after this time, on both directions.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(20);
const TCP_KEEPALIVE: Duration = Duration::from_secs(10);
/// A peer inside a message must send at least `BYTES_A_SECOND_MIN`, judged after this time.
const SLOW_AFTER: Duration = Duration::from_secs(30);
const BYTES_A_SECOND_MIN: u64 = 1024;
/// Chunks written at once.
pub(super) const SLICES_MAX: usize = 16;
/// What a peer that is not known may always have in a message.
const FREE_BYTES: usize = 64 * 1024;
/// How much is read at once.
const READ_BYTES: usize = 64 * 1024;

thread_local! {
    /// Where comms of a thread read to. Each has only what it needs: thousands may be silent.
    static ARRIVED: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ_BYTES].into());
}

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
    #[error("no encrypted comm with the peer: {0}")]
    Stranger(&'static str),
    #[error("the handshake of TLS failed")]
    TlsHandshake(#[source] std::io::Error),
    #[error("the peer speaks TLS, and comms are plain here: it has to connect to tcp://, not tls://")]
    Encrypted,
    #[error("the comm failed")]
    Io(#[from] std::io::Error),
    #[error("bad framing")]
    Frame(#[from] FrameError),
    #[error("the peer closed in the middle of a message")]
    Truncated,
    #[error("peers that are not known have sent too much together")]
    Crowded,
    #[error("another operator has taken over")]
    Fenced,
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
    session: Option<Arc<Session>>,
    decoder: FrameDecoder,
    /// Of what peers take together that are not known yet.
    share: Option<Share>,
}

/// The writing half.
#[derive(Debug)]
pub struct Sender {
    half: OwnedWriteHalf,
    session: Option<Arc<Session>>,
    /// While it is not open the socket counts as one that takes nothing.
    fence: Option<Fence>,
}

impl Connection {
    /// Shakes hands with a peer that has connected to us.
    ///
    /// # Errors
    /// When the peer speaks no Dask or is not let in, or not in time.
    pub async fn accept(stream: TcpStream, tls: Option<&Tls>, patience: Duration) -> Result<Self, CommError> {
        Self::establish(stream, patience, async |stream| match tls {
            Some(tls) => tls.accept(stream).await.map(|(stream, session)| (stream, Some(session))),
            None => Ok((stream, None)),
        })
        .await
    }

    /// Shakes hands with a peer that we have connected to.
    ///
    /// # Errors
    /// As `accept`.
    pub async fn connect(stream: TcpStream, tls: Option<&Tls>, patience: Duration) -> Result<Self, CommError> {
        Self::establish(stream, patience, async |stream| match tls {
            Some(tls) => tls.connect(stream).await.map(|(stream, session)| (stream, Some(session))),
            None => Ok((stream, None)),
        })
        .await
    }

    async fn establish(
        stream: TcpStream,
        patience: Duration,
        encrypt: impl AsyncFnOnce(TcpStream) -> Result<(TcpStream, Option<Session>), CommError>,
    ) -> Result<Self, CommError> {
        let peer = stream.peer_addr()?;
        configure(&stream)?;
        let establishing = async {
            let (stream, session) = encrypt(stream).await?;
            let session = session.map(Arc::new);
            let (read, write) = stream.into_split();
            let decoder = FrameDecoder::new(Limits::HANDSHAKE);
            let mut connection = Self {
                receiver: Receiver { half: read, session: session.clone(), decoder, share: None },
                sender: Sender { half: write, session, fence: None },
                peer,
            };
            connection.shake_hands().await?;
            Ok(connection)
        };
        let mut connection = timeout(patience, establishing).await.unwrap_or(Err(CommError::HandshakeTimeout(patience)))?;
        connection.receiver.set_limits(Limits::UNREGISTERED);
        Ok(connection)
    }

    async fn shake_hands(&mut self) -> Result<(), CommError> {
        self.sender.send(Handshake::ours().encode()).await?;
        let message = match self.receiver.receive().await {
            Err(CommError::Frame(FrameError::MessageTooLong { found, .. })) if is_client_hello(found) => {
                Err(CommError::Encrypted)
            }
            message => message?.ok_or(CommError::Truncated),
        };
        Handshake::decode(&message?)?;
        Ok(())
    }
}

/// Whether the first bytes of a comm, read as a length, are those with which TLS begins.
fn is_client_hello(length: u64) -> bool {
    length.to_le_bytes().starts_with(&[0x16, 0x03])
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

    /// Has what arrives count against a budget, but for the first `FREE_BYTES`; until the peer is known.
    pub fn share(&mut self, budget: Option<&Budget>) {
        self.share = budget.map(Budget::share);
    }

    /// The next message; `None` when the peer has closed between messages.
    ///
    /// Dropping the future loses nothing: what arrived stays in the decoder.
    ///
    /// # Errors
    /// When the socket fails, the framing is bad or the peer is too slow inside a message.
    pub async fn receive(&mut self) -> Result<Option<Message>, CommError> {
        if let Some(message) = self.take_arrived()? {
            return Ok(Some(message));
        }
        // Between messages a peer may take its time.
        if !self.decoder.is_in_message() && self.read().await? == 0 {
            return Ok(None);
        }
        let started = Instant::now();
        let before = self.decoder.buffered();
        loop {
            if let Some(message) = self.take_arrived()? {
                return Ok(Some(message));
            }
            if timeout(SLOW_AFTER, self.read()).await.map_err(|_| CommError::Slow)?? == 0 {
                return Err(CommError::Truncated);
            }
            let buffered = self.decoder.buffered();
            if self.share.as_mut().is_some_and(|share| !share.resize(buffered.saturating_sub(FREE_BYTES))) {
                return Err(CommError::Crowded);
            }
            let elapsed = started.elapsed();
            let arrived = buffered.saturating_sub(before) as u64;
            if elapsed > SLOW_AFTER && arrived / elapsed.as_secs().max(1) < BYTES_A_SECOND_MIN {
                return Err(CommError::Slow);
            }
        }
    }

    /// A message that has arrived already, without waiting for more.
    ///
    /// # Errors
    /// When the framing is bad.
    pub fn take_arrived(&mut self) -> Result<Option<Message>, FrameError> {
        self.decoder.poll()
    }

    /// Reads what is there; 0 bytes mean that the peer has closed.
    async fn read(&mut self) -> std::io::Result<usize> {
        if let Some(session) = &self.session {
            loop {
                if let Some(count) = session.read(self.half.as_ref(), self.decoder.buffer())? {
                    return Ok(count);
                }
                self.half.readable().await?;
            }
        }
        poll_fn(|context| {
            ARRIVED.with_borrow_mut(|arrived| {
                let mut arrived = ReadBuf::new(arrived);
                ready!(Pin::new(&mut self.half).poll_read(context, &mut arrived))?;
                self.decoder.buffer().extend_from_slice(arrived.filled());
                Poll::Ready(Ok(arrived.filled().len()))
            })
        })
        .await
    }
}

impl Sender {
    /// Has the peer be given up later when its kernel does not answer, or it does not read.
    ///
    /// # Errors
    /// When the socket is gone.
    pub fn give_up_after(&self, silence: Duration) -> std::io::Result<()> {
        #[cfg(target_os = "linux")]
        SockRef::from(self.half.as_ref()).set_tcp_user_timeout(Some(silence))?;
        Ok(())
    }

    /// Has nothing written from here on unless the fence is open.
    pub fn fence(&mut self, fence: &Fence) {
        self.fence = Some(fence.clone());
    }

    /// Writes the chunks of one or more messages.
    ///
    /// # Errors
    /// When the socket fails, or the fence is closed.
    pub async fn send(&mut self, chunks: Vec<Bytes>) -> Result<(), CommError> {
        self.wait_and_write(&mut chunks.into()).await
    }

    /// Writes chunks and removes what is written, until nothing is left.
    ///
    /// # Errors
    /// As `send`.
    pub(super) async fn wait_and_write(&self, chunks: &mut VecDeque<Bytes>) -> Result<(), CommError> {
        while !self.write(chunks)? {
            self.half.writable().await?;
            if let Some(fence) = &self.fence
                && !fence.opened().await
            {
                return Err(CommError::Fenced);
            }
        }
        Ok(())
    }

    /// Writes as much as the socket takes at once, and removes it; whether nothing is left.
    ///
    /// # Errors
    /// When the socket fails.
    pub(super) fn write(&self, chunks: &mut VecDeque<Bytes>) -> std::io::Result<bool> {
        if self.fence.as_ref().is_some_and(|fence| !fence.is_open()) {
            return Ok(chunks.is_empty());
        }
        if let Some(session) = &self.session {
            return session.write(self.half.as_ref(), chunks);
        }
        while !chunks.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            match self.half.try_write_vectored(fill(&mut slices, chunks)) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => remove(chunks, written),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if let Some(session) = &self.session {
            session.close(self.half.as_ref());
        }
    }
}

/// The first chunks, as they are written at once.
pub(super) fn fill<'a, 'b>(slices: &'b mut [IoSlice<'a>; SLICES_MAX], chunks: &'a VecDeque<Bytes>) -> &'b [IoSlice<'a>] {
    let count = chunks.len().min(SLICES_MAX);
    for (slice, chunk) in slices.iter_mut().zip(chunks) {
        *slice = IoSlice::new(chunk);
    }
    &slices[..count]
}

/// Removes the first bytes of chunks.
pub(super) fn remove(chunks: &mut VecDeque<Bytes>, mut count: usize) {
    while let Some(first) = chunks.front_mut() {
        if first.len() > count {
            return first.advance(count);
        }
        count -= first.len();
        chunks.pop_front();
    }
}
