//! A connection: what one side writes arrives in order at the other, late, or not at all once it is cut.

use std::collections::VecDeque;

use bytes::Bytes;

/// Who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    Server,
    Peer,
}

/// One direction.
#[derive(Debug, Default)]
struct Lane {
    /// Written and not read yet, with when it arrives.
    under_way: VecDeque<(u64, Bytes)>,
    /// What is written next arrives no earlier.
    busy_until: u64,
    /// The reader has gone, or hears no more.
    is_dead: bool,
}

/// Both directions.
#[derive(Debug, Default)]
pub(crate) struct Link {
    to_server: Lane,
    to_peer: Lane,
}

impl Link {
    fn lane(&mut self, end: End) -> &mut Lane {
        match end {
            End::Server => &mut self.to_server,
            End::Peer => &mut self.to_peer,
        }
    }

    /// Writes a message for one end; gives when it arrives, unless it is lost.
    pub(crate) fn write(&mut self, end: End, now: u64, delay: u64, message: Bytes) -> Option<u64> {
        let lane = self.lane(end);
        if lane.is_dead {
            return None;
        }
        let at = (now + delay).max(lane.busy_until);
        lane.busy_until = at;
        lane.under_way.push_back((at, message));
        Some(at)
    }

    /// The next message that has arrived at one end.
    pub(crate) fn read(&mut self, end: End, now: u64) -> Option<Bytes> {
        let lane = self.lane(end);
        lane.under_way.front().filter(|(at, _)| *at <= now)?;
        lane.under_way.pop_front().map(|(_, message)| message)
    }

    /// The reader of one end takes nothing for a while.
    pub(crate) fn stall(&mut self, end: End, until: u64) {
        let lane = self.lane(end);
        lane.busy_until = lane.busy_until.max(until);
    }

    /// What has not arrived at one end never will.
    pub(crate) fn cut(&mut self, end: End) {
        let lane = self.lane(end);
        lane.is_dead = true;
        lane.under_way.clear();
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.to_server.under_way.is_empty() && self.to_peer.under_way.is_empty()
    }
}
