//! Starts a server for each namespace that needs one, and keeps the way to it.

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
use crate::comm::Tls;
use crate::controller::{Servers, endpoint};
use crate::engine;
use crate::error::chain;
use crate::operator::admission::PodAdmission;
use crate::operator::args::OperatorArgs;
use crate::operator::secrets::Secrets;
use crate::pods::SharedIndex;
use crate::server;

/// Ports tried from the first one on.
const PORTS: u16 = 1000;
/// How often a Service is written again, should someone have changed it; the API server ignores what is the same.
const ENDPOINT_PERIOD: Duration = Duration::from_secs(30);
/// After this time it is tried again to serve a namespace that has no certificates.
const POSTPONED: Duration = Duration::from_secs(5);

/// Reason of the Event that says so.
const PLAIN_COMMS: &str = "PlainComms";

/// How long workers whose pods are ready are waited for after a start.
const PATIENCE: Duration = Duration::from_secs(15);

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
        let mut postponed = JoinSet::new();
        for namespace in &self.args.namespaces {
            self.serve(namespace, &mut serving, &mut postponed).await?;
        }
        loop {
            let namespaces: BTreeSet<String> = tokio::select! {
                wanted = self.servers.wanted() => wanted,
                changed = pods_changed.recv() => match changed {
                    Some(namespace) => self.on_pods_changed(namespace),
                    None => anyhow::bail!("the watch of pods has ended by itself"),
                },
                Some(namespace) = postponed.join_next(), if !postponed.is_empty() => BTreeSet::from([namespace?]),
                Some(ended) = serving.join_next(), if !serving.is_empty() => {
                    let namespace: String = ended.context("a scheduler has ended in an error")?;
                    info!(namespace, "the namespace is gone");
                    self.servers.remove(&namespace);
                    continue;
                }
            };
            for namespace in namespaces {
                if self.servers.find(&namespace).is_none() {
                    self.serve(&namespace, &mut serving, &mut postponed).await?;
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

    async fn serve(&self, namespace: &str, serving: &mut JoinSet<String>, postponed: &mut JoinSet<String>) -> Result<()> {
        let secrets = Secrets::new(self.client.clone(), namespace, self.args.certificate_lifetime);
        let tls = match self.args.is_plain(namespace) {
            true => None,
            false => match secrets.refresh().await {
                Ok(credentials) => Some(Tls::new(&credentials, Handle::current())?),
                Err(error) if error.status().is_some_and(|status| status.code == 404 || is_of_ending_namespace(status)) => {
                    debug!(namespace, "the namespace is ending");
                    return Ok(());
                }
                // It is not served in plain TCP instead.
                Err(error) => {
                    warn!(namespace, error = %chain(&error), "failed to make the certificates of a namespace; trying again");
                    let namespace = namespace.to_owned();
                    postponed.spawn(async move {
                        sleep(POSTPONED).await;
                        namespace
                    });
                    return Ok(());
                }
            },
        };
        let listener = self.listen().await?;
        let port = listener.local_addr()?.port();
        let epoch = server::epoch_of_now();
        let config = server::Config {
            engine: engine::Config { epoch, ..engine::Config::default() },
            seed: epoch,
            admission: Arc::new(PodAdmission { namespace: namespace.to_owned(), index: Arc::clone(&self.index) }),
            tls: tls.clone(),
            changed: self.reports.clone(),
            id: format!("Scheduler-mainstay-{namespace}"),
            http_port: self.args.http_port,
            patience: PATIENCE,
            // There is one operator.
            fence: server::Fence::default(),
        };
        let (handle, mut server) = server::start(config, listener)?;
        info!(namespace, port, encrypted = tls.is_some(), "serving a namespace");
        self.servers.insert(namespace, handle);
        // Its collections may be waiting for it.
        let _ = self.changed.send(namespace.to_owned());
        let way = Way { client: self.client.clone(), pod_name: self.args.pod_name.clone(), pod_ip: self.args.pod_ip, port };
        let namespace = namespace.to_owned();
        serving.spawn(async move {
            tokio::select! {
                () = way.keep(&namespace, tls.is_some()) => namespace,
                () = secrets.keep(tls.clone()) => namespace,
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

/// The way to one namespace's server.
struct Way {
    client: Client,
    pod_name: Option<String>,
    pod_ip: IpAddr,
    port: u16,
}

impl Way {
    /// Points the namespace's Service at us, again and again; ends when the namespace is gone.
    async fn keep(self, namespace: &str, is_encrypted: bool) {
        let mut is_told = is_encrypted;
        loop {
            match endpoint::apply(&self.client, namespace, self.pod_ip, self.port).await {
                Ok(service) if !is_told => {
                    is_told = true;
                    self.tell_of_plain_comms(&service).await;
                }
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => return,
                // What is in it goes first, and nothing can be made there any more; soon it is gone.
                Err(kube::Error::Api(status)) if is_of_ending_namespace(&status) => debug!(namespace, "the namespace is ending"),
                Err(error) => warn!(namespace, error = %chain(&error), "failed to write the Service of a scheduler"),
            }
            sleep(ENDPOINT_PERIOD).await;
        }
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
fn is_of_ending_namespace(status: &kube::core::Status) -> bool {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    status.code == 403 && causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
}
