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

impl Namespace {
    /// Remembers an event and tells who listens.
    pub(crate) fn log_event(&mut self, topics: &[String], msg: &Value) {
        let time = unix_seconds();
        for topic in topics {
            if self.topics.events.len() < TOPICS_MAX || self.topics.events.contains_key(topic) {
                let events = self.topics.events.entry(topic.clone()).or_default();
                if events.len() == EVENTS_A_TOPIC_MAX {
                    events.pop_front();
                }
                events.push_back((time, msg.clone()));
            }
            for client in self.topics.subscribers.get(topic).into_iter().flatten() {
                self.clients.tell(*client, &ToClient::Event { topic: topic.clone(), time, msg: msg.clone() });
            }
        }
    }
}
