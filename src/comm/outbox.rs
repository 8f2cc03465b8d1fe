//! What waits to be written to one comm.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use thiserror::Error;
use tokio::sync::mpsc;

use crate::comm::Sender;

/// More than this waits for a peer that does not read: then the comm is closed, and the peer starts anew.
///
/// Larger than one shard of a value (64 MiB), since a task's inlined data may be that large.
const OUTBOX_BYTES_MAX: usize = 256 * 1024 * 1024;
/// The same, in messages.
const OUTBOX_MESSAGES_MAX: usize = 10_000;

/// With so many waiting, the peer is slower than we are: what is next is better collected into one message.
const BACKLOG_MESSAGES: usize = 4;

/// A bounded queue in front of one comm. The comm closes when it is dropped and what waits in it is written.
///
/// Mostly nothing waits: then a message is written at once, without a detour through the loop that empties the queue.
#[derive(Debug)]
pub struct Outbox {
    sender: Arc<Sender>,
    queue: mpsc::UnboundedSender<VecDeque<Bytes>>,
    waiting: Arc<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: AtomicUsize,
    messages: AtomicUsize,
}

/// The peer does not read, or is gone.
#[derive(Debug, Error)]
#[error("the peer does not take its messages")]
pub struct OutboxFull;

impl Outbox {
    /// Makes the queue and starts the loop that empties it into the comm.
    pub fn start(sender: Sender) -> Self {
        let (queue, mut waiting_messages) = mpsc::unbounded_channel::<VecDeque<Bytes>>();
        let waiting = Arc::new(Waiting::default());
        let sender = Arc::new(sender);
        let (counters, writer) = (Arc::clone(&waiting), Arc::clone(&sender));
        tokio::spawn(async move {
            while let Some(mut chunks) = waiting_messages.recv().await {
                let bytes = size(&chunks);
                if writer.wait_and_write(&mut chunks).await.is_err() {
                    // The reading half sees the end as well and reports it.
                    break;
                }
                counters.bytes.fetch_sub(bytes, Ordering::Relaxed);
                counters.messages.fetch_sub(1, Ordering::Release);
            }
        });
        Self { sender, queue, waiting }
    }

    /// Writes the chunks of one message, or queues what the socket does not take.
    ///
    /// # Errors
    /// When too much waits already or the comm has ended; the caller gives the peer up.
    pub fn push(&mut self, chunks: Vec<Bytes>) -> Result<(), OutboxFull> {
        let mut chunks = VecDeque::from(chunks);
        let messages = self.waiting.messages.load(Ordering::Acquire);
        if messages == 0 && self.sender.write(&mut chunks).map_err(|_| OutboxFull)? {
            return Ok(());
        }
        let bytes = self.waiting.bytes.fetch_add(size(&chunks), Ordering::Relaxed);
        self.waiting.messages.fetch_add(1, Ordering::Relaxed);
        // What waited before counts: one message of any size must be able to leave.
        if bytes > OUTBOX_BYTES_MAX || messages > OUTBOX_MESSAGES_MAX {
            return Err(OutboxFull);
        }
        self.queue.send(chunks).map_err(|_| OutboxFull)
    }
}

impl Outbox {
    /// Whether the peer reads more slowly than it is written to.
    pub fn is_backlogged(&self) -> bool {
        self.waiting.messages.load(Ordering::Acquire) >= BACKLOG_MESSAGES
    }
}

fn size(chunks: &VecDeque<Bytes>) -> usize {
    chunks.iter().map(Bytes::len).sum()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::comm::Connection;

    #[tokio::test]
    async fn a_peer_that_does_not_read_is_behind_until_it_does() {
        const MESSAGE: usize = 4 << 20;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let connect = TcpStream::connect(listener.local_addr().unwrap());
        let (ours, theirs) = tokio::join!(listener.accept(), connect);
        let (patience, (ours, theirs)) = (Duration::from_secs(10), (ours.unwrap().0, theirs.unwrap()));
        let (ours, theirs) = tokio::join!(Connection::accept(ours, None, patience), Connection::connect(theirs, None, patience));
        let mut outbox = Outbox::start(ours.unwrap().sender);
        assert!(!outbox.is_backlogged());
        for _ in 0..BACKLOG_MESSAGES + 8 {
            outbox.push(vec![Bytes::from(vec![0; MESSAGE])]).unwrap();
        }
        assert!(outbox.is_backlogged());
        // Zeroes are no messages: reading ends with an error, and the comm with it, but for what was sent.
        drop(theirs);
    }
}
