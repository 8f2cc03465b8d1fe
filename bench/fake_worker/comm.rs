//! A comm: messages of frames over a socket, of which a fake worker wants the first frame alone.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::sleep;

use crate::msgpack::Write as _;

const READ_BYTES: usize = 256 * 1024;
const WORD: usize = 8;
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(100);
/// `N`, the number of frames, and the length of the only one.
const PRELUDE: usize = 3 * WORD;

pub(crate) struct Comm {
    stream: TcpStream,
    /// Of which the part up to `start` has been given out.
    received: Vec<u8>,
    start: usize,
}

/// A message under way: one frame, its document not yet whole.
pub(crate) struct Draft(pub(crate) Vec<u8>);

impl Draft {
    pub(crate) fn new() -> Self {
        Self(vec![0; PRELUDE])
    }

    pub(crate) fn finish(&mut self) -> &[u8] {
        let length = (self.0.len() - PRELUDE) as u64;
        let words = [2 * WORD as u64 + length, 1, length];
        for (place, word) in self.0.chunks_exact_mut(WORD).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        &self.0
    }
}

impl Comm {
    /// Connects and shakes hands, and tries again where a crowd was turned away. `from` is the address to connect from.
    pub(crate) async fn connect(address: &str, from: Option<IpAddr>) -> anyhow::Result<Self> {
        let mut tries = TRIES;
        loop {
            tries -= 1;
            match Self::try_connect(address, from).await {
                Err(_) if tries > 0 => sleep(PAUSE).await,
                result => return result,
            }
        }
    }

    async fn try_connect(address: &str, from: Option<IpAddr>) -> anyhow::Result<Self> {
        let to: SocketAddr = address.trim_start_matches("tcp://").parse().context("no address of a scheduler")?;
        let socket = TcpSocket::new_v4()?;
        if let Some(ip) = from {
            socket.bind(SocketAddr::new(ip, 0))?;
        }
        let stream = socket.connect(to).await?;
        stream.set_nodelay(true)?;
        let mut comm = Self { stream, received: Vec::new(), start: 0 };
        let mut draft = Draft::new();
        draft.0.map(3);
        draft.0.text("compression");
        draft.0.push(0xc0);
        draft.0.text("python");
        draft.0.extend_from_slice(&[0x93, 3, 11, 0]);
        draft.0.text("pickle-protocol");
        draft.0.push(5);
        comm.send(draft.finish()).await?;
        comm.receive().await?.context("closed in the handshake")?;
        Ok(comm)
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(self.stream.write_all(bytes).await?)
    }

    /// The document of the next message with the size of the whole, or `None` at the end.
    pub(crate) async fn receive(&mut self) -> anyhow::Result<Option<(&[u8], usize)>> {
        let (document, end) = loop {
            match extent(&self.received[self.start..]) {
                Some((document, size)) if self.start + size <= self.received.len() => break (document, size),
                _ => {
                    self.received.drain(..self.start);
                    self.start = 0;
                    self.received.reserve(READ_BYTES);
                }
            }
            if self.stream.read_buf(&mut self.received).await? == 0 {
                return Ok(None);
            }
        };
        let message = &self.received[self.start..self.start + end];
        self.start += end;
        Ok(Some((&message[document], end)))
    }
}

/// Where the first frame of a message is, and where the message ends; `None` when too little of it has arrived.
fn extent(bytes: &[u8]) -> Option<(std::ops::Range<usize>, usize)> {
    let word = |index: usize| {
        let word = bytes.get(index * WORD..(index + 1) * WORD)?.try_into().ok()?;
        Some(u64::from_le_bytes(word) as usize)
    };
    let frames = word(1)?;
    let start = (2 + frames) * WORD;
    let size = (0..frames).try_fold(0, |size, frame| Some(size + word(2 + frame)?))?;
    Some((start..start + word(2)?, start + size))
}
