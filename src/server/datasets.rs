//! Datasets: what Clients published, and the outputs of declared collections beside them.

use std::collections::{BTreeMap, VecDeque};

use crate::dask::TaskKey;
use crate::engine::{ClientId, Stimulus};
use crate::server::event::Answer;
use crate::server::namespace::Namespace;
use crate::wire::messages::rpc;
use crate::wire::pickle::Object;
use crate::wire::value::Value;

/// Flushes of one Client that are remembered for calls that come later; of more, the oldest are forgotten.
const FLUSHES_MAX: usize = 1000;

/// What Clients published, by name. Names may be any value that is a key.
#[derive(Debug, Default)]
pub(crate) struct Datasets {
    published: BTreeMap<TaskKey, Dataset>,
    /// Calls that wait until their Client's stream has caught up, by the number that both say.
    unflushed: BTreeMap<String, Vec<Unflushed>>,
}

#[derive(Debug)]
struct Dataset {
    data: Value,
    keys: Vec<TaskKey>,
}

/// One dataset to publish.
#[derive(Debug)]
pub(crate) struct Put {
    pub(crate) name: TaskKey,
    pub(crate) data: Value,
    pub(crate) keys: Vec<TaskKey>,
}

/// What a call does once all that its Client said before on its stream has taken effect.
#[derive(Debug)]
pub(crate) enum Change {
    Put {
        puts: Vec<Put>,
        replaces: bool,
    },
    Delete(Vec<TaskKey>),
    /// `publish_wait_flush`, with which Clients before 2026.6.0 wait before they publish.
    Nothing,
}

#[derive(Debug)]
struct Unflushed {
    client: Option<ClientId>,
    change: Change,
    answer: Answer,
}

/// The flushes of one Client: what it said before each has taken effect.
#[derive(Debug, Default)]
pub(crate) struct Flushes(VecDeque<String>);

impl Flushes {
    fn add(&mut self, uid: String) {
        if self.0.len() == FLUSHES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(uid);
    }

    pub(crate) fn contains(&self, uid: &str) -> bool {
        self.0.iter().rev().any(|flushed| flushed == uid)
    }
}

impl Datasets {
    /// A Client has left: what it did not finish is dropped, and its calls with it.
    pub(crate) fn forget(&mut self, client: ClientId) {
        for calls in self.unflushed.values_mut() {
            calls.retain(|call| call.client != Some(client) && !call.answer.is_unwanted());
        }
        self.unflushed.retain(|_, calls| !calls.is_empty());
    }
}

impl Namespace {
    /// Changes what is published, once the stream of the Client that asks has caught up.
    pub(crate) fn change_datasets(&mut self, client: Option<ClientId>, uid: Option<String>, change: Change, answer: Answer) {
        if let Some(uid) = uid
            && !self.clients.has_flushed(client, &uid)
        {
            self.datasets.unflushed.entry(uid).or_default().push(Unflushed { client, change, answer });
            return;
        }
        self.change_now(change, answer);
    }

    /// A Client's stream has caught up with its calls of the same number.
    pub(crate) fn on_publish_flush(&mut self, client: ClientId, uid: String) {
        let calls = self.datasets.unflushed.remove(&uid).unwrap_or_default();
        if let Some(entry) = self.clients.get_mut(client) {
            entry.flushes.add(uid);
        }
        for call in calls {
            self.change_now(call.change, call.answer);
        }
    }

    fn change_now(&mut self, change: Change, answer: Answer) {
        let reply = match change {
            Change::Put { puts, replaces } => self.publish_all(puts, replaces),
            Change::Delete(names) => self.unpublish_all(&names),
            Change::Nothing => Value::Nil,
        };
        // The caller may have gone meanwhile.
        let _ = answer.send(reply.encode());
    }

    fn publish_all(&mut self, puts: Vec<Put>, replaces: bool) -> Value {
        if let Some(text) = puts.iter().find_map(|put| self.refusal(&put.name, replaces)) {
            return rpc::failed(&Object::key_error(&text), &text);
        }
        for put in puts {
            self.unpublish(&put.name);
            let client = self.clients.standing(&wanter(&put.name));
            self.stimulate(Stimulus::ClientDesiresKeys { client, keys: put.keys.clone() });
            self.datasets.published.insert(put.name, Dataset { data: put.data, keys: put.keys });
        }
        Value::Nil
    }

    /// Why a name cannot be published.
    fn refusal(&self, name: &TaskKey, replaces: bool) -> Option<String> {
        if name.as_text().is_some_and(|text| self.collections.owns(text)) {
            return Some(format!(
                "Dataset {name} is declared by the PersistedCollection of that name; publish under another name"
            ));
        }
        (!replaces && self.datasets.published.contains_key(name)).then(|| format!("Dataset {name} already exists"))
    }

    /// `publish_delete`: the declared ones stay.
    fn unpublish_all(&mut self, names: &[TaskKey]) -> Value {
        let declared = names.iter().find(|name| name.as_text().is_some_and(|text| self.collections.owns(text)));
        if let Some(name) = declared {
            let text = format!("Dataset {name} belongs to a PersistedCollection; delete that with kubectl to let it go");
            return rpc::failed(&Object::value_error(&text), &text);
        }
        for name in names {
            self.unpublish(name);
        }
        Value::Nil
    }

    fn unpublish(&mut self, name: &TaskKey) {
        if let Some(dataset) = self.datasets.published.remove(name) {
            let client = self.clients.standing(&wanter(name));
            self.stimulate(Stimulus::ClientReleasesKeys { client, keys: dataset.keys });
        }
    }

    /// `publish_list`: every name there is.
    pub(crate) fn dataset_names(&self) -> Value {
        // As Python would sort their texts.
        let mut published: Vec<&TaskKey> = self.datasets.published.keys().collect();
        published.sort_by_cached_key(ToString::to_string);
        let published = published.into_iter().map(Value::from);
        Value::Array(self.collections.dataset_names().into_iter().map(Value::Text).chain(published).collect())
    }

    /// `publish_get`: data and keys, or nil for what is not there.
    pub(crate) fn dataset(&self, name: &TaskKey) -> Value {
        let keys = |keys: &[TaskKey]| Value::Array(keys.iter().map(Value::from).collect());
        if let Some((data, output_keys)) = name.as_text().and_then(|text| self.collections.dataset(text)) {
            return Value::map([("data", data.into()), ("keys", keys(&output_keys))]);
        }
        match self.datasets.published.get(name) {
            Some(dataset) => Value::map([("data", dataset.data.clone()), ("keys", keys(&dataset.keys))]),
            None => Value::Nil,
        }
    }
}

/// Who wants a published dataset's keys, as in Dask.
fn wanter(name: &TaskKey) -> String {
    format!("published-{name}")
}
