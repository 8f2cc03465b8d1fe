//! What waits to be written to one comm.

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

/// A bounded queue in front of one comm; cheap to clone. The comm closes when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Outbox {
    queue: mpsc::UnboundedSender<Vec<Bytes>>,
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
    pub fn start(mut sender: Sender) -> Self {
        let (queue, mut waiting_messages) = mpsc::unbounded_channel::<Vec<Bytes>>();
        let waiting = Arc::new(Waiting::default());
        let counters = Arc::clone(&waiting);
        tokio::spawn(async move {
            while let Some(chunks) = waiting_messages.recv().await {
                let bytes = size(&chunks);
                if sender.send(chunks).await.is_err() {
                    // The reading half sees the end as well and reports it.
                    break;
                }
                counters.bytes.fetch_sub(bytes, Ordering::Relaxed);
                counters.messages.fetch_sub(1, Ordering::Relaxed);
            }
        });
        Self { queue, waiting }
    }

    /// Queues the chunks of one message.
    ///
    /// # Errors
    /// When too much waits already or the comm has ended; the caller gives the peer up.
    pub fn push(&self, chunks: Vec<Bytes>) -> Result<(), OutboxFull> {
        let bytes = self.waiting.bytes.fetch_add(size(&chunks), Ordering::Relaxed);
        let messages = self.waiting.messages.fetch_add(1, Ordering::Relaxed);
        // What waited before counts: one message of any size must be able to leave.
        if bytes > OUTBOX_BYTES_MAX || messages > OUTBOX_MESSAGES_MAX {
            return Err(OutboxFull);
        }
        self.queue.send(chunks).map_err(|_| OutboxFull)
    }
}

fn size(chunks: &[Bytes]) -> usize {
    chunks.iter().map(Bytes::len).sum()
}
