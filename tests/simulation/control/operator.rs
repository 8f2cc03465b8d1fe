//! An operator's process: the controller with the servers of its namespaces. Ending it loses all that it knows.

use std::sync::Arc;

use mainstay::controller::{Changes, Context, NamespaceChange, Servers, run};
use mainstay::server::{Fence, StandIn};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::api_server::ApiServer;
use super::namespace;

pub(crate) struct Operator {
    loops: JoinSet<()>,
    pub(crate) servers: Servers,
    /// Held, or the controller takes it for the end.
    _namespaces: mpsc::UnboundedSender<NamespaceChange>,
}

impl Operator {
    pub(crate) fn start(api: &ApiServer) -> Self {
        let (handle, stand_in) = StandIn::new();
        let servers = Servers::default();
        servers.hold("analytics", Fence::default());
        servers.insert("analytics", handle);
        let context = Arc::new(Context::without_pods(api.client(), servers.clone()));
        let (changed, reports) = mpsc::unbounded_channel();
        let (namespaces_changed, namespaces) = mpsc::unbounded_channel();
        let mut loops = JoinSet::new();
        loops.spawn(namespace::serve(api.clone(), stand_in, changed));
        loops.spawn(run(context, vec!["analytics".to_owned()], Changes { reports, namespaces }));
        Self { loops, servers, _namespaces: namespaces_changed }
    }

    /// Whether a loop has ended that must not, and how.
    pub(crate) fn check_alive(&mut self) {
        if let Some(ended) = self.loops.try_join_next() {
            ended.expect("a loop of the operator goes on");
            panic!("a loop of the operator has ended");
        }
    }
}
