//! Datasets: what Clients published, and the outputs of declared collections beside them.

use std::collections::BTreeMap;

use crate::dask::TaskKey;
use crate::engine::{ClientId, Stimulus};
use crate::server::event::Answer;
use crate::server::namespace::Namespace;
use crate::wire::messages::rpc;
use crate::wire::pickle::Object;
use crate::wire::value::Value;

/// Flushes of one Client that may be remembered before their `publish_put` comes.
const FLUSHES_MAX: usize = 1000;

/// What Clients published, by name. Names may be any value that is a key.
#[derive(Debug, Default)]
pub(crate) struct Datasets {
    published: BTreeMap<TaskKey, Dataset>,
    /// `publish_put` calls that wait until their Client's stream has caught up.
    unflushed: BTreeMap<(ClientId, String), (Vec<Put>, bool, Answer)>,
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

impl Datasets {
    /// A Client has left: what it did not finish publishing is dropped, and its call with it.
    pub(crate) fn forget(&mut self, client: ClientId) {
        self.unflushed.retain(|(waiting, _), _| *waiting != client);
    }
}

impl Namespace {
    /// `publish_put`: acts once all that the Client said before on its stream has taken effect.
    pub(crate) fn publish(
        &mut self,
        client: Option<ClientId>,
        uid: Option<String>,
        puts: Vec<Put>,
        replaces: bool,
        answer: Answer,
    ) {
        if let (Some(client), Some(uid)) = (client, uid)
            && !self.clients.get_mut(client).is_some_and(|client| client.flushed.remove(&uid))
        {
            self.datasets.unflushed.insert((client, uid), (puts, replaces, answer));
            return;
        }
        self.publish_now(puts, replaces, answer);
    }

    /// A Client's stream has caught up with its call of `publish_put`.
    pub(crate) fn on_publish_flush(&mut self, client: ClientId, uid: String) {
        let key = (client, uid);
        if let Some((puts, replaces, answer)) = self.datasets.unflushed.remove(&key) {
            self.publish_now(puts, replaces, answer);
        } else if let Some(entry) = self.clients.get_mut(client)
            && entry.flushed.len() < FLUSHES_MAX
        {
            entry.flushed.insert(key.1);
        }
    }

    fn publish_now(&mut self, puts: Vec<Put>, replaces: bool, answer: Answer) {
        let refusal = puts.iter().find_map(|put| self.refusal(&put.name, replaces));
        let reply = match refusal {
            Some(text) => rpc::failed(&Object::key_error(&text), &text),
            None => {
                for put in puts {
                    self.unpublish(&put.name);
                    let client = self.clients.standing(&wanter(&put.name));
                    self.stimulate(Stimulus::ClientDesiresKeys { client, keys: put.keys.clone() });
                    self.datasets.published.insert(put.name, Dataset { data: put.data, keys: put.keys });
                }
                Value::Nil
            }
        };
        // The caller may have gone meanwhile.
        let _ = answer.send(reply.encode());
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
    pub(crate) fn unpublish_all(&mut self, names: &[TaskKey]) -> Value {
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
