//! Serves each namespace that needs it and whose Lease is ours, and keeps the way there.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use k8s_openapi::api::core::v1::Service;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource as _};
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use crate::api::labels::EVENT_CONTROLLER;
use crate::comm::{Boottime, Fence, Tls};
use crate::controller::{NamespaceChange, Servers, endpoint};
use crate::engine;
use crate::error::chain;
use crate::operator::admission::PodAdmission;
use crate::operator::args::OperatorArgs;
use crate::operator::leases::{Leases, Turn};
use crate::operator::secrets::Secrets;
use crate::pods::SharedIndex;
use crate::server;

/// Ports tried from the first one on.
const PORTS: u16 = 1000;
/// How often a Service is written again, should someone have changed it; the API server ignores what is the same.
const ENDPOINT_PERIOD: Duration = Duration::from_secs(30);
/// The same after a write that failed: nobody finds the scheduler meanwhile.
const ENDPOINT_RETRY: Duration = Duration::from_secs(2);
/// After this time it is tried again to serve a namespace that has no certificates.
const POSTPONED: Duration = Duration::from_secs(5);

/// Reason of the Event that says so.
const PLAIN_COMMS: &str = "PlainComms";

/// How long workers whose pods are ready are waited for after a start.
const PATIENCE: Duration = Duration::from_secs(15);

/// The namespaces that this process looks after: it serves those whose Lease it has, and stands by for the others.
pub(crate) struct Namespaces {
    pub(crate) client: Client,
    pub(crate) args: OperatorArgs,
    pub(crate) index: SharedIndex,
    pub(crate) leases: Arc<Leases>,
    pub(crate) servers: Servers,
    /// Tells the controller which collections have news.
    pub(crate) reports: mpsc::UnboundedSender<String>,
    /// Tells the controller what became of namespaces.
    pub(crate) changed: mpsc::UnboundedSender<NamespaceChange>,
}

impl Namespaces {
    /// Runs until a server ends in an error, which ends the process: a new one starts clean.
    pub(crate) async fn run(self: Arc<Self>, mut pods_changed: mpsc::UnboundedReceiver<String>) -> Result<()> {
        let mut looking_after = JoinSet::new();
        let mut looked_after = BTreeSet::new();
        let mut wanted: BTreeSet<String> = self.args.namespaces.iter().cloned().collect();
        loop {
            for namespace in wanted {
                if looked_after.insert(namespace.clone()) {
                    looking_after.spawn(Arc::clone(&self).look_after(namespace));
                }
            }
            wanted = tokio::select! {
                wanted = self.servers.wanted() => wanted,
                changed = pods_changed.recv() => match changed {
                    Some(namespace) => self.on_pods_changed(namespace),
                    None => anyhow::bail!("the watch of pods has ended by itself"),
                },
                Some(ended) = looking_after.join_next(), if !looking_after.is_empty() => {
                    let namespace: String = ended.context("a scheduler has ended in an error")??;
                    info!(namespace, "the namespace is gone");
                    looked_after.remove(&namespace);
                    BTreeSet::new()
                }
            };
        }
    }

    /// Ends all service, and gives the Leases back.
    pub(crate) async fn give_back(&self) {
        self.servers.let_go_of_all();
        self.leases.release().await;
    }

    /// Passes the news on; gives the namespace if its pods ask for a server.
    fn on_pods_changed(&self, namespace: String) -> BTreeSet<String> {
        self.tell(NamespaceChange::Pods(namespace.clone()));
        if let Some(server) = self.servers.find(&namespace) {
            server.workers_changed();
            return BTreeSet::new();
        }
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        BTreeSet::from([namespace]).intersection(&index.namespaces_with_roles()).cloned().collect()
    }

    /// Serves a namespace whenever its Lease is ours; ends when the namespace is gone.
    async fn look_after(self: Arc<Self>, namespace: String) -> Result<String> {
        let mut claim = self.leases.claim();
        loop {
            let fence = Fence::until(Boottime::default());
            match self.leases.pursue(&namespace, &mut claim, &fence).await {
                Turn::Taken => {}
                Turn::Lost => continue,
                // What holds it up is let go, by whoever sees it.
                Turn::Ending => {
                    self.servers.hold(&namespace, Fence::default());
                    self.tell(NamespaceChange::Pods(namespace.clone()));
                    continue;
                }
                Turn::Gone => {
                    self.servers.let_go(&namespace);
                    return Ok(namespace);
                }
            }
            let epoch = claim.epoch().expect("a Lease that was taken is held");
            self.servers.hold(&namespace, fence.clone());
            let is_gone = tokio::select! {
                served = self.serve(&namespace, epoch, &fence) => served.map(|()| true)?,
                turn = self.leases.pursue(&namespace, &mut claim, &fence) => turn == Turn::Gone,
            };
            self.servers.let_go(&namespace);
            self.tell(NamespaceChange::Unserved(namespace.clone()));
            if is_gone {
                return Ok(namespace);
            }
        }
    }

    /// Runs a server for a namespace until that is gone.
    async fn serve(&self, namespace: &str, epoch: u64, fence: &Fence) -> Result<()> {
        let secrets = Secrets::new(self.client.clone(), namespace, self.args.certificate_lifetime);
        let tls = if self.args.is_plain(namespace) {
            None
        } else {
            loop {
                match secrets.refresh().await {
                    Ok(credentials) => break Some(Tls::new(&credentials, Handle::current())?),
                    Err(error) if error.status().is_some_and(|status| status.code == 404) => return Ok(()),
                    Err(error) if error.status().is_some_and(is_of_ending_namespace) => {
                        debug!(namespace, "the namespace is ending");
                    }
                    // It is not served in plain TCP instead.
                    Err(error) => {
                        warn!(namespace, error = %chain(&error), "failed to make the certificates of a namespace; trying again");
                    }
                }
                sleep(POSTPONED).await;
            }
        };
        let listener = self.listen().await?;
        let port = listener.local_addr()?.port();
        let config = server::Config {
            engine: engine::Config { epoch, ..engine::Config::default() },
            seed: epoch,
            admission: Arc::new(PodAdmission { namespace: namespace.to_owned(), index: Arc::clone(&self.index) }),
            tls: tls.clone(),
            changed: self.reports.clone(),
            id: format!("Scheduler-mainstay-{namespace}"),
            http_port: self.args.http_port,
            fence: fence.clone(),
            patience: PATIENCE,
        };
        let (handle, mut server) = server::start(config, listener)?;
        info!(namespace, port, epoch, encrypted = tls.is_some(), "serving a namespace");
        self.servers.insert(namespace, handle);
        // Its collections may be waiting for it.
        self.tell(NamespaceChange::Served(namespace.to_owned()));
        let (client, pod_name) = (self.client.clone(), self.args.pod_name.clone());
        let way = Way { client, pod_name, pod_ip: self.args.pod_ip, port, fence: fence.clone() };
        tokio::select! {
            () = way.keep(namespace, tls.is_some()) => Ok(()),
            () = secrets.keep(tls.clone()) => Ok(()),
            ended = &mut server => ended.context("a scheduler has ended in an error"),
        }
    }

    fn tell(&self, change: NamespaceChange) {
        // The controller has ended when nobody listens, and the process with it.
        let _ = self.changed.send(change);
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

/// The way to one namespace's server.
struct Way {
    client: Client,
    pod_name: Option<String>,
    pod_ip: IpAddr,
    port: u16,
    fence: Fence,
}

impl Way {
    /// Points the namespace's Service at us, again and again; ends when the namespace is gone.
    async fn keep(self, namespace: &str, is_encrypted: bool) {
        let mut is_told = is_encrypted;
        while self.fence.opened().await {
            let mut pause = ENDPOINT_PERIOD;
            match endpoint::apply(&self.client, namespace, self.pod_ip, self.port).await {
                Ok(service) if !is_told => {
                    is_told = true;
                    self.tell_of_plain_comms(&service).await;
                }
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => return,
                // What is in it goes first, and nothing can be made there any more; soon it is gone.
                Err(kube::Error::Api(status)) if is_of_ending_namespace(&status) => debug!(namespace, "the namespace is ending"),
                Err(error) => {
                    warn!(namespace, error = %chain(&error), "failed to write the Service of a scheduler; trying again");
                    pause = ENDPOINT_RETRY;
                }
            }
            sleep(pause).await;
        }
        std::future::pending().await
    }

    /// So that nobody in the namespace takes it for guarded. An Event that cannot be published is a courtesy less.
    async fn tell_of_plain_comms(&self, service: &Service) {
        let reporter = Reporter { controller: EVENT_CONTROLLER.to_owned(), instance: self.pod_name.clone() };
        let note = "comms of this namespace are plain TCP: whoever reaches the scheduler or a worker can run code on the workers";
        let event = Event {
            type_: EventType::Warning,
            reason: PLAIN_COMMS.to_owned(),
            note: Some(note.to_owned()),
            action: "Serve".to_owned(),
            secondary: None,
        };
        let published = Recorder::new(self.client.clone(), reporter).publish(&event, &service.object_ref(&())).await;
        if let Err(error) = published {
            debug!(error = %chain(&error), "an event was not published");
        }
    }
}

/// Whether the API server refuses because the namespace is being deleted.
pub(super) fn is_of_ending_namespace(status: &kube::core::Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 403 && causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}
