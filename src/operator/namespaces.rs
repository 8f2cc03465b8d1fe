//! Starts a server for each namespace that needs one, and keeps the way to it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use kube::Client;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use crate::controller::{Servers, endpoint};
use crate::engine;
use crate::error::chain;
use crate::operator::admission::PodAdmission;
use crate::operator::args::OperatorArgs;
use crate::pods::SharedIndex;
use crate::server;

/// Ports tried from the first one on.
const PORTS: u16 = 1000;
/// How often a Service is written again, should someone have changed it; the API server ignores what is the same.
const ENDPOINT_PERIOD: Duration = Duration::from_secs(30);

/// The namespaces of this process.
pub(crate) struct Namespaces {
    pub(crate) client: Client,
    pub(crate) args: OperatorArgs,
    pub(crate) index: SharedIndex,
    pub(crate) servers: Servers,
    /// Tells the controller which collections have news.
    pub(crate) reports: mpsc::UnboundedSender<String>,
    /// Tells the controller which namespaces have other pods or another server.
    pub(crate) changed: mpsc::UnboundedSender<String>,
}

impl Namespaces {
    /// Runs until a server ends in an error, which ends the process: a new one starts clean.
    pub(crate) async fn run(self, mut pods_changed: mpsc::UnboundedReceiver<String>) -> Result<()> {
        let mut serving = JoinSet::new();
        for namespace in &self.args.namespaces {
            self.serve(namespace, &mut serving).await?;
        }
        loop {
            let namespaces: BTreeSet<String> = tokio::select! {
                wanted = self.servers.wanted() => wanted,
                changed = pods_changed.recv() => match changed {
                    Some(namespace) => self.on_pods_changed(namespace),
                    None => anyhow::bail!("the watch of pods has ended by itself"),
                },
                Some(ended) = serving.join_next(), if !serving.is_empty() => {
                    let namespace: String = ended.context("a scheduler has ended in an error")?;
                    info!(namespace, "the namespace is gone");
                    self.servers.remove(&namespace);
                    continue;
                }
            };
            for namespace in namespaces {
                if self.servers.find(&namespace).is_none() {
                    self.serve(&namespace, &mut serving).await?;
                }
            }
        }
    }

    /// Passes the news on; gives the namespace if its pods ask for a server.
    fn on_pods_changed(&self, namespace: String) -> BTreeSet<String> {
        // The controller has ended when nobody listens, and the process with it.
        let _ = self.changed.send(namespace.clone());
        if let Some(server) = self.servers.find(&namespace) {
            server.workers_changed();
            return BTreeSet::new();
        }
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        BTreeSet::from([namespace]).intersection(&index.namespaces_with_roles()).cloned().collect()
    }

    async fn serve(&self, namespace: &str, serving: &mut JoinSet<String>) -> Result<()> {
        let listener = self.listen().await?;
        let port = listener.local_addr()?.port();
        // Run ids of an earlier process must not pass for ours: tasks that outlive it would answer with them.
        let started = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
        let config = server::Config {
            engine: engine::Config { epoch: started as u32, ..engine::Config::default() },
            seed: started,
            admission: Arc::new(PodAdmission { namespace: namespace.to_owned(), index: Arc::clone(&self.index) }),
            tls: None,
            changed: self.reports.clone(),
            id: format!("Scheduler-mainstay-{namespace}"),
            http_port: self.args.http_port,
        };
        let (handle, mut server) = server::start(config, listener)?;
        info!(namespace, port, "serving a namespace");
        self.servers.insert(namespace, handle);
        // Its collections may be waiting for it.
        let _ = self.changed.send(namespace.to_owned());
        let (client, pod_ip, namespace) = (self.client.clone(), self.args.pod_ip, namespace.to_owned());
        serving.spawn(async move {
            tokio::select! {
                () = keep_endpoint(client, &namespace, pod_ip, port) => namespace,
                ended = &mut server => match ended {
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Ok(()) | Err(_) => namespace,
                },
            }
        });
        Ok(())
    }

    async fn listen(&self) -> Result<TcpListener> {
        let mut last = None;
        for port in self.args.port_from..self.args.port_from.saturating_add(PORTS) {
            match TcpListener::bind(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)).await {
                Ok(listener) => return Ok(listener),
                Err(error) => last = Some(error),
            }
        }
        anyhow::bail!("no free port from {} on: {last:?}", self.args.port_from)
    }
}

/// Points the namespace's Service at us, again and again; ends when the namespace is gone.
async fn keep_endpoint(client: Client, namespace: &str, pod_ip: IpAddr, port: u16) {
    loop {
        match endpoint::apply(&client, namespace, pod_ip, port).await {
            Ok(()) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => return,
            // What is in it goes first, and nothing can be made there any more; soon it is gone.
            Err(kube::Error::Api(status)) if is_of_ending_namespace(&status) => debug!(namespace, "the namespace is ending"),
            Err(error) => warn!(namespace, error = %chain(&error), "failed to write the Service of a scheduler"),
        }
        tokio::time::sleep(ENDPOINT_PERIOD).await;
    }
}

/// Whether the API server refuses because the namespace is being deleted.
fn is_of_ending_namespace(status: &kube::core::Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 403 && causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}
