//! Events by topic: a bounded memory, and who listens.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::engine::ClientId;
use crate::server::clock::unix_seconds;
use crate::server::namespace::Namespace;
use crate::wire::messages::ToClient;
use crate::wire::value::Value;

/// Events remembered for each topic.
const EVENTS_A_TOPIC_MAX: usize = 1000;
/// Topics remembered; workers name them as they like.
const TOPICS_MAX: usize = 1000;

/// What was logged, and the Clients to tell.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    events: BTreeMap<String, VecDeque<(f64, Value)>>,
    subscribers: BTreeMap<String, BTreeSet<ClientId>>,
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
        let list = |events: &VecDeque<(f64, Value)>| {
            Value::Array(events.iter().map(|(time, msg)| Value::Array(vec![(*time).into(), msg.clone()])).collect())
        };
        match topic {
            Some(topic) => self.events.get(topic).map_or(Value::Array(Vec::new()), list),
            None => Value::Map(self.events.iter().map(|(topic, events)| (topic.as_str().into(), list(events))).collect()),
        }
    }
}

impl Topics {
    /// What is remembered of a topic. When there are too many, the one that has been silent for longest gives way.
    fn remembered(&mut self, topic: &str) -> &mut VecDeque<(f64, Value)> {
        if self.events.len() >= TOPICS_MAX && !self.events.contains_key(topic) {
            let last = |events: &VecDeque<(f64, Value)>| events.back().map_or(0.0, |(time, _)| *time);
            let silent = self.events.iter().min_by(|(_, one), (_, other)| last(one).total_cmp(&last(other)));
            if let Some(silent) = silent.map(|(topic, _)| topic.clone()) {
                self.events.remove(&silent);
            }
        }
        self.events.entry(topic.to_owned()).or_default()
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
            let events = self.topics.remembered(topic);
            if events.len() == EVENTS_A_TOPIC_MAX {
                events.pop_front();
            }
            events.push_back((time, msg.clone()));
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
            topics.remembered(&format!("t{index}")).push_back((index as f64, Value::Nil));
        }
        topics.remembered("t0").push_back((1e6, Value::Nil));
        topics.remembered("new").push_back((1e6, Value::Nil));
        assert_eq!(topics.events.len(), TOPICS_MAX);
        assert!(topics.events.contains_key("t0") && !topics.events.contains_key("t1"));
    }
}
