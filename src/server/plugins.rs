//! Plugins of workers and nannies: pickles that we keep, hand to all who are there and to each who joins.
//!
//! Source: distributed 2026.8.0, scheduler.py: `register_worker_plugin`, `register_nanny_plugin`.

use bytes::Bytes;

use crate::server::call::{self, OnError};
use crate::server::namespace::Namespace;
use crate::server::requests::Reply;
use crate::wire::document::{DocumentError, Fields};
use crate::wire::messages::rpc;
use crate::wire::pickle::{Object, first_global};
use crate::wire::value::Value;

/// Plugins kept of each kind: every new worker gets all of them.
const PLUGINS_MAX: usize = 1000;
/// What `Client.upload_file` has for the scheduler besides the plugin for workers.
const UPLOAD_FILE: (&str, &str) = ("distributed.diagnostics.plugin", "SchedulerUploadFile");

/// By name, in the order of registration.
#[derive(Debug)]
pub(crate) struct Plugins {
    workers: Vec<(String, Bytes)>,
    nannies: Vec<(String, Bytes)>,
}

impl Default for Plugins {
    /// Workers shuffle by a plugin that a stock scheduler registers with them by itself.
    fn default() -> Self {
        Self { workers: vec![("shuffle".to_owned(), Object::shuffle_plugin().dumps())], nannies: Vec::new() }
    }
}

/// Who runs a plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    Worker,
    Nanny,
}

impl Host {
    /// What a host calls taking a plugin in and letting go of it.
    const fn ops(self) -> (&'static str, &'static str) {
        match self {
            Self::Worker => ("plugin-add", "plugin-remove"),
            Self::Nanny => ("plugin_add", "plugin_remove"),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Nanny => "nanny",
        }
    }
}

impl Plugins {
    pub(crate) fn of(&self, host: Host) -> &[(String, Bytes)] {
        match host {
            Host::Worker => &self.workers,
            Host::Nanny => &self.nannies,
        }
    }

    fn of_mut(&mut self, host: Host) -> &mut Vec<(String, Bytes)> {
        match host {
            Host::Worker => &mut self.workers,
            Host::Nanny => &mut self.nannies,
        }
    }

    fn has(&self, host: Host, name: &str) -> bool {
        self.of(host).iter().any(|(known, _)| known == name)
    }

    /// Keeps a plugin; one of the same name gives way.
    fn keep(&mut self, host: Host, name: &str, plugin: Bytes) -> bool {
        let plugins = self.of_mut(host);
        if let Some(known) = plugins.iter_mut().find(|(known, _)| known == name) {
            known.1 = plugin;
        } else if plugins.len() < PLUGINS_MAX {
            plugins.push((name.to_owned(), plugin));
        } else {
            return false;
        }
        true
    }

    fn forget(&mut self, host: Host, name: &str) -> bool {
        let plugins = self.of_mut(host);
        let place = plugins.iter().position(|(known, _)| known == name);
        place.map(|place| plugins.remove(place)).is_some()
    }
}

impl Namespace {
    /// `register_worker_plugin`, `register_nanny_plugin`: answers with what each host says.
    pub(crate) fn register_plugin(&mut self, host: Host, fields: &Fields<'_>) -> Result<Reply, DocumentError> {
        let name = fields.text("name")?;
        let plugin = fields.binary("plugin")?;
        if fields.optional_boolean("idempotent")?.unwrap_or_default() && self.plugins.has(host, name) {
            return Ok(Value::Map(Vec::new()).into());
        }
        if !self.plugins.keep(host, name, plugin.clone()) {
            let text = format!("there are {PLUGINS_MAX} {} plugins, and no room for {name}: unregister some", host.name());
            return Ok(rpc::failed(&Object::value_error(&text), &text).into());
        }
        let message = Value::map([("op", host.ops().0.into()), ("plugin", Value::Binary(plugin)), ("name", name.into())]);
        Ok(tell_hosts(host, message))
    }

    /// `unregister_worker_plugin`, `unregister_nanny_plugin`.
    pub(crate) fn unregister_plugin(&mut self, host: Host, fields: &Fields<'_>) -> Result<Reply, DocumentError> {
        let name = fields.text("name")?;
        if !self.plugins.forget(host, name) {
            let text = format!("The {} plugin {name} does not exist", host.name());
            return Ok(rpc::failed(&Object::value_error(&text), &text).into());
        }
        Ok(tell_hosts(host, Value::map([("op", host.ops().1.into()), ("name", name.into())])))
    }

    /// `register_scheduler_plugin`: there is no Python here to run one.
    pub(crate) fn register_scheduler_plugin(&mut self, fields: &Fields<'_>) -> Result<Value, DocumentError> {
        // The file itself comes with a plugin for workers, which graphs are lowered on as well.
        if first_global(&fields.binary("plugin")?) == Some(UPLOAD_FILE) {
            return Ok(Value::Nil);
        }
        Ok(self.refuse("register_scheduler_plugin"))
    }
}

fn tell_hosts(host: Host, message: Value) -> Reply {
    Reply::later(move |namespace, answer| {
        let targets = namespace.targets_of_all(host == Host::Nanny);
        call::broadcast(namespace.pool.clone(), targets, message, OnError::Raise, answer);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_of_the_same_name_gives_way_in_its_place() {
        let mut plugins = Plugins { workers: Vec::new(), nannies: Vec::new() };
        for (name, pickle) in [("a", "1"), ("b", "2"), ("a", "3")] {
            assert!(plugins.keep(Host::Worker, name, Bytes::from_static(pickle.as_bytes())));
        }
        assert_eq!(plugins.of(Host::Worker), [("a".to_owned(), "3".into()), ("b".to_owned(), "2".into())]);
        assert!(plugins.of(Host::Nanny).is_empty());
        assert!(plugins.forget(Host::Worker, "a") && !plugins.forget(Host::Worker, "a"));
    }

    #[test]
    fn there_are_only_so_many() {
        let mut plugins = Plugins::default();
        let all = (0..PLUGINS_MAX).all(|index| plugins.keep(Host::Nanny, &index.to_string(), Bytes::new()));
        assert!(all && !plugins.keep(Host::Nanny, "one more", Bytes::new()) && plugins.keep(Host::Nanny, "0", Bytes::new()));
    }
}
