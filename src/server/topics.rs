//! Events by topic: a bounded memory, and who listens.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use crate::engine::ClientId;
use crate::server::clock::unix_seconds;
use crate::server::namespace::Namespace;
use crate::wire::messages::ToClient;
use crate::wire::value::Value;

/// Events remembered for each topic.
const EVENTS_A_TOPIC_MAX: usize = 1000;
/// Topics remembered; workers name them as they like.
const TOPICS_MAX: usize = 1000;
/// What all remembered events take together, in bytes of their documents.
const BYTES_MAX: usize = 32 * 1024 * 1024;

/// What was logged, and the Clients to tell.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    events: BTreeMap<String, VecDeque<Remembered>>,
    /// Of all events.
    bytes: usize,
    subscribers: BTreeMap<String, BTreeSet<ClientId>>,
}

#[derive(Debug)]
struct Remembered {
    time: f64,
    msg: Value,
    bytes: usize,
}

impl Topics {
    pub(crate) fn subscribe(&mut self, topic: &str, client: ClientId) {
        self.subscribers.entry(topic.to_owned()).or_default().insert(client);
    }

    pub(crate) fn unsubscribe(&mut self, topic: &str, client: ClientId) {
        if let Some(clients) = self.subscribers.get_mut(topic) {
            clients.remove(&client);
        }
    }

    /// A Client has left.
    pub(crate) fn forget(&mut self, client: ClientId) {
        for clients in self.subscribers.values_mut() {
            clients.remove(&client);
        }
        self.subscribers.retain(|_, clients| !clients.is_empty());
    }

    /// The answer to the RPC `events`: of one topic, or of all by topic.
    pub(crate) fn events(&self, topic: Option<&str>) -> Value {
        let list = |events: &VecDeque<Remembered>| {
            Value::Array(events.iter().map(|event| Value::Array(vec![event.time.into(), event.msg.clone()])).collect())
        };
        match topic {
            Some(topic) => self.events.get(topic).map_or(Value::Array(Vec::new()), list),
            None => Value::Map(self.events.iter().map(|(topic, events)| (topic.as_str().into(), list(events))).collect()),
        }
    }
}

impl Topics {
    /// Remembers an event. Where there are too many, the oldest of its topic give way, then the topics that have been silent
    /// for longest.
    fn remember(&mut self, topic: &str, time: f64, msg: &Value) {
        if self.events.len() >= TOPICS_MAX && !self.events.contains_key(topic) {
            self.forget_silent_topic();
        }
        let bytes = msg.encode().iter().map(Bytes::len).sum();
        self.bytes += bytes;
        let events = self.events.entry(topic.to_owned()).or_default();
        events.push_back(Remembered { time, msg: msg.clone(), bytes });
        while events.len() > EVENTS_A_TOPIC_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = events.pop_front() else { break };
            self.bytes -= oldest.bytes;
        }
        while self.bytes > BYTES_MAX {
            self.forget_silent_topic();
        }
    }

    fn forget_silent_topic(&mut self) {
        let last = |events: &VecDeque<Remembered>| events.back().map_or(0.0, |event| event.time);
        let silent = self.events.iter().min_by(|(_, one), (_, other)| last(one).total_cmp(&last(other)));
        let Some(topic) = silent.map(|(topic, _)| topic.clone()) else { return };
        let events = self.events.remove(&topic).unwrap_or_default();
        self.bytes -= events.iter().map(|event| event.bytes).sum::<usize>();
    }
}

impl Namespace {
    /// Notes what the scheduler itself has seen, under the names that a stock scheduler has for it.
    pub(crate) fn note<'a>(&mut self, topics: &[&str], action: &str, more: impl IntoIterator<Item = (&'a str, Value)>) {
        let mut fields = vec![("action".into(), action.into())];
        fields.extend(more.into_iter().map(|(name, value)| (name.into(), value)));
        let topics: Vec<String> = topics.iter().map(|topic| (*topic).to_owned()).collect();
        self.log_event(&topics, &Value::Map(fields));
    }

    /// Remembers an event and tells who listens.
    pub(crate) fn log_event(&mut self, topics: &[String], msg: &Value) {
        let time = unix_seconds();
        for topic in topics {
            self.topics.remember(topic, time, msg);
            for client in self.topics.subscribers.get(topic).into_iter().flatten() {
                self.clients.tell(*client, &ToClient::Event { topic: topic.clone(), time, msg: msg.clone() });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topic_that_was_silent_for_longest_gives_way() {
        let mut topics = Topics::default();
        for index in 0..TOPICS_MAX {
            topics.remember(&format!("t{index}"), index as f64, &Value::Nil);
        }
        topics.remember("t0", 1e6, &Value::Nil);
        topics.remember("new", 1e6, &Value::Nil);
        assert_eq!(topics.events.len(), TOPICS_MAX);
        assert!(topics.events.contains_key("t0") && !topics.events.contains_key("t1"));
    }

    #[test]
    fn events_take_no_more_than_they_may() {
        let mut topics = Topics::default();
        let long = Value::Text("x".repeat(BYTES_MAX / 4));
        topics.remember("before", 0.0, &long);
        for index in 0..10 {
            topics.remember("flood", f64::from(index), &long);
        }
        // Of its own topic first.
        assert_eq!((topics.events["before"].len(), topics.events["flood"].len()), (1, 2));
        topics.remember("flood", 10.0, &Value::Text("x".repeat(BYTES_MAX)));
        assert_eq!((topics.events["before"].len(), topics.events["flood"].len()), (1, 0));
        let counted: usize = topics.events.values().flatten().map(|event| event.bytes).sum();
        assert_eq!(topics.bytes, counted);
    }
}
