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
/// Where Dask's own plugins are.
const MODULE: &str = "distributed.diagnostics.plugin";
/// What `Client.upload_file` has for the scheduler besides the plugin for workers.
const UPLOAD_FILE: &str = "SchedulerUploadFile";
/// What uploads a folder: nannies get it, and hand it to their workers.
const UPLOAD_DIRECTORY: &str = "UploadDirectory";
/// What its pickle says when the folder is for the scheduler alone.
const FOR_SCHEDULER_ALONE: &[u8] = b"mode\x94\x8c\x09scheduler\x94";
/// Plugins for the scheduler that have others for workers or nannies, which install something where those are.
const INSTALLERS: [&str; 3] = ["InstallPlugin", "PipInstall", "CondaInstall"];
/// What their pickles say of nannies: the name of a field, which is memoized, and `True`.
const RESTARTS_WORKERS: &[u8] = b"restart_workers\x94\x88";

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
            return Ok(no_room(host, name).into());
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

    /// `register_scheduler_plugin`: there is no Python here to run one. What Dask's own are for is done on workers and nannies.
    pub(crate) fn register_scheduler_plugin(&mut self, fields: &Fields<'_>) -> Result<Reply, DocumentError> {
        let plugin = fields.binary("plugin")?;
        match first_global(&plugin) {
            // The file itself comes with a plugin for workers, which graphs are lowered on as well.
            Some((MODULE, UPLOAD_FILE)) => Ok(Value::Nil.into()),
            Some((MODULE, class)) if INSTALLERS.contains(&class) => Ok(self.register_installer(fields.text("name")?, plugin)),
            Some((MODULE, UPLOAD_DIRECTORY)) if !contains(&plugin, FOR_SCHEDULER_ALONE) => {
                Ok(self.register_on(Host::Nanny, fields.text("name")?, &directory_of(plugin)))
            }
            _ => Ok(self.refuse("register_scheduler_plugin").into()),
        }
    }

    /// Installs something where the workers are, and where later ones will be.
    ///
    /// Source: distributed 2026.8.0, diagnostics/plugin.py: `InstallPlugin`.
    fn register_installer(&mut self, name: &str, plugin: Bytes) -> Reply {
        let (host, class) = match contains(&plugin, RESTARTS_WORKERS) {
            true => (Host::Nanny, "_InstallNannyPlugin"),
            false => (Host::Worker, "_InstallWorkerPlugin"),
        };
        if self.plugins.has(host, name) {
            return Value::Nil.into();
        }
        // Of the plugin only the function that installs is taken: `getattr(pickle.loads(plugin), "_install_fn")`.
        let loaded = Object::call("pickle", "loads", vec![Object::Binary(plugin)]);
        let install = Object::call("builtins", "getattr", vec![loaded, Object::text("_install_fn")]);
        self.register_on(host, name, &Object::call(MODULE, class, vec![install, Object::text(name)]))
    }

    /// Hands on what a plugin for the scheduler is for; what a host says that could not take it is raised.
    fn register_on(&mut self, host: Host, name: &str, plugin: &Object) -> Reply {
        let plugin = plugin.dumps();
        if !self.plugins.keep(host, name, plugin.clone()) {
            return no_room(host, name).into();
        }
        let message = Value::map([("op", host.ops().0.into()), ("plugin", Value::Binary(plugin)), ("name", name.into())]);
        Reply::later(move |namespace, answer| {
            let targets = namespace.targets_of_all(host == Host::Nanny);
            let asked = targets.into_iter().map(|target| (target, message.clone())).collect();
            call::ask_each(namespace.pool.clone(), asked, OnError::Raise, answer, |replies| {
                replies.into_iter().find_map(|(_, reply)| raised(reply)).unwrap_or(Value::Nil)
            });
        })
    }

    /// `unregister_scheduler_plugin`: ends what `register_installer` began; others are not there.
    pub(crate) fn unregister_scheduler_plugin(&mut self, fields: &Fields<'_>) -> Result<Reply, DocumentError> {
        let name = fields.text("name")?;
        let host = if self.plugins.has(Host::Nanny, name) { Host::Nanny } else { Host::Worker };
        self.unregister_plugin(host, fields)
    }
}

/// The plugin for nannies with the folder of one for the scheduler: `_UploadDirectoryNannyPlugin(*attrgetter(…)(loads(plugin)))`.
///
/// Source: distributed 2026.8.0, diagnostics/plugin.py: `UploadDirectory.start`.
fn directory_of(plugin: Bytes) -> Object {
    let loaded = Object::call("pickle", "loads", vec![Object::Binary(plugin)]);
    let names = ["path", "data", "restart_workers", "update_path", "name"].map(Object::text);
    let fields = Object::Call(Box::new(Object::call("operator", "attrgetter", names.into())), vec![loaded]);
    let class = Object::Global(MODULE, "_UploadDirectoryNannyPlugin");
    let made = Object::call("itertools", "starmap", vec![class, Object::List(vec![fields])]);
    Object::call("builtins", "next", vec![made])
}

fn contains(pickle: &[u8], piece: &[u8]) -> bool {
    pickle.windows(piece.len()).any(|bytes| bytes == piece)
}

/// What a host says that could not do it, so that the Client raises it.
fn raised(mut reply: Value) -> Option<Value> {
    let Value::Map(fields) = &mut reply else { return None };
    let (_, status) = fields.iter_mut().find(|(name, _)| name.as_text() == Some("status"))?;
    if status.as_text() != Some("error") {
        return None;
    }
    *status = "uncaught-error".into();
    Some(reply)
}

fn no_room(host: Host, name: &str) -> Value {
    let text = format!("there are {PLUGINS_MAX} {} plugins, and no room for {name}: unregister some", host.name());
    rpc::failed(&Object::value_error(&text), &text)
}

fn tell_hosts(host: Host, message: Value) -> Reply {
    Reply::later(move |namespace, answer| match host {
        Host::Worker => {
            let targets = namespace.targets_of_all(false);
            call::broadcast(namespace.pool.clone(), targets, message, OnError::Raise, answer);
        }
        Host::Nanny => namespace.tell_nannies(message, answer),
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
