//! A stock Client, as far as it speaks of keys.

use std::collections::BTreeMap;

use bytes::Bytes;
use mainstay::dask::TaskKey;
use mainstay::wire::EncodedKeys;
use mainstay::wire::messages::{FromClient, ToClient, UpdateGraph};
use mainstay::wire::opaque::plain_bytes;
use mainstay::wire::value::Value;

use crate::codec::{encoded, framed};
use crate::world::LinkId;

/// What a future says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Future {
    Pending,
    Finished,
    Error,
    /// The scheduler knows nothing of it any more, unless it was asked for again meanwhile. It stays until it is let go of.
    Cancelled,
}

#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) link: LinkId,
    /// All keys that it has futures of.
    pub(crate) futures: BTreeMap<TaskKey, Future>,
    said: Vec<FromClient>,
}

impl Client {
    pub(crate) fn new(link: LinkId) -> Self {
        Self { link, futures: BTreeMap::new(), said: Vec::new() }
    }

    pub(crate) fn submit(&mut self, keys: Vec<TaskKey>) {
        self.futures.extend(keys.iter().map(|key| (key.clone(), Future::Pending)));
        self.said.push(FromClient::UpdateGraph(Box::new(UpdateGraph {
            expr_ser: plain_bytes(Bytes::new()),
            keys: EncodedKeys::from(&keys[..]),
            internal_priority: Value::Nil,
            submitting_task: None,
            fifo_timeout: Value::from("100 ms"),
            actors: Value::Nil,
            code: Value::Nil,
            annotations: Value::Nil,
            span_metadata: Value::Nil,
        })));
    }

    pub(crate) fn desire(&mut self, keys: Vec<TaskKey>) {
        for key in &keys {
            self.futures.entry(key.clone()).or_insert(Future::Pending);
        }
        self.said.push(FromClient::ClientDesiresKeys { keys, client: None });
    }

    pub(crate) fn let_go(&mut self, keys: Vec<TaskKey>) {
        keys.iter().for_each(|key| _ = self.futures.remove(key));
        self.said.push(FromClient::ClientReleasesKeys { keys, client: None });
    }

    pub(crate) fn cancel(&mut self, keys: Vec<TaskKey>, force: bool) {
        self.said.push(FromClient::CancelKeys { keys, force, reason: None, msg: None });
    }

    pub(crate) fn close(&mut self) {
        self.said.extend([FromClient::CloseClient, FromClient::CloseStream]);
    }

    pub(crate) fn flush(&mut self) -> Option<Bytes> {
        let said = std::mem::take(&mut self.said);
        (!said.is_empty()).then(|| encoded(&said))
    }

    pub(crate) fn read(&mut self, bytes: &Bytes) {
        for message in ToClient::decode_batch(&framed(bytes)).expect("what we say can be read") {
            match message {
                ToClient::KeyInMemory { key, .. } => self.learn(&key, Future::Finished),
                ToClient::TaskErred { key, .. } => self.learn(&key, Future::Error),
                ToClient::LostData { key } | ToClient::TaskRetried { key } => self.learn(&key, Future::Pending),
                ToClient::CancelledKeys { keys, .. } => keys.iter().for_each(|key| self.learn(key, Future::Cancelled)),
                ToClient::StreamStart { .. } => {}
                other => panic!("nothing led to {other:?}"),
            }
        }
    }

    fn learn(&mut self, key: &TaskKey, future: Future) {
        if let Some(known) = self.futures.get_mut(key) {
            *known = future;
        }
    }
}
