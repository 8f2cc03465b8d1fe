//! One object, its namespace's server, and a controller: what every test begins with.

use std::sync::Arc;
use std::time::Duration;

use mainstay::api::PersistedCollection;
use mainstay::controller::{Context, Error, Servers, reconcile};
use mainstay::engine::{OutputSummary, Summary, TaskCounts};
use mainstay::server::{Fence, OutputInfo, Report, Stage, StandIn};
use serde_json::{Value, json};

use crate::api_server::ApiServer;

pub(crate) const UID: &str = "uid-1";

pub(crate) struct World {
    pub(crate) api: ApiServer,
    pub(crate) servers: Servers,
    pub(crate) stand_in: StandIn,
    context: Arc<Context>,
}

/// What one reconciliation did.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) requests: Vec<String>,
    pub(crate) result: Result<Option<Duration>, Error>,
}

impl World {
    /// A collection with this spec, just made, in a namespace that is served.
    pub(crate) fn with(spec: Value) -> Self {
        let api = ApiServer::holding(json!({
            "apiVersion": "mainstay.dev/v1alpha1",
            "kind": "PersistedCollection",
            "metadata": {
                "name": "daily", "namespace": "analytics", "uid": UID, "generation": 1, "resourceVersion": "1",
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": spec,
        }));
        let (handle, stand_in) = StandIn::new();
        let servers = Servers::default();
        servers.hold("analytics", Fence::default());
        servers.insert("analytics", handle);
        let context = Arc::new(Context::without_pods(api.client(), servers.clone()));
        Self { api, servers, stand_in, context }
    }

    pub(crate) fn new() -> Self {
        Self::with(good_spec())
    }

    /// One that the controller has taken already: finalizer on, first status written, handed to the server.
    pub(crate) async fn taken() -> Self {
        let mut world = Self::new();
        world.reconcile().await.settled();
        world.reconcile().await.settled();
        world.stand_in.taken();
        world
    }

    /// Reconciles the object as the API server has it.
    pub(crate) async fn reconcile(&self) -> Outcome {
        self.reconcile_cached(self.api.collection()).await
    }

    /// Reconciles the object as a cache shows it.
    pub(crate) async fn reconcile_cached(&self, collection: Value) -> Outcome {
        let collection: PersistedCollection = serde_json::from_value(collection).unwrap();
        let result = reconcile(Arc::new(collection), Arc::clone(&self.context)).await;
        Outcome { requests: self.api.lines(), result }
    }

    pub(crate) async fn pass(&self, duration: Duration) {
        tokio::time::advance(duration).await;
    }

    /// Passes the time between two writes of a status.
    pub(crate) async fn pause(&self) {
        self.pass(Duration::from_secs(2)).await;
    }
}

impl Outcome {
    /// The requests of a reconciliation that went well.
    pub(crate) fn settled(self) -> Vec<String> {
        self.result.unwrap();
        self.requests
    }
}

pub(crate) fn good_spec() -> Value {
    json!({"source": {"python": "daily = 1"}, "collections": ["daily"]})
}

fn revision_of(spec: &Value) -> String {
    let spec = serde_json::from_value(spec.clone()).unwrap();
    mainstay::controller::validate::validate("daily", &spec, Some("daily = 1".to_owned())).unwrap().revision
}

/// The server's word on the good spec, at some stage.
pub(crate) fn report(generation: i64, stage: Stage, summary: Option<Summary>) -> Report {
    let outputs = vec![OutputInfo { name: "daily".to_owned(), type_name: "DataFrame".to_owned(), keys: 4 }];
    Report {
        generation,
        revision: revision_of(&good_spec()),
        stage,
        summary: summary.map(Box::new),
        outputs,
        refusal: None,
        lost_workers: Vec::new(),
        missing_input: None,
        is_remade: false,
    }
}

pub(crate) fn running(done: u64) -> Report {
    report(1, Stage::Accepted, Some(summary(done)))
}

pub(crate) fn persisted() -> Report {
    report(1, Stage::Accepted, Some(summary(4)))
}

fn summary(done: u64) -> Summary {
    Summary {
        tasks: TaskCounts { total: 4, done, memory: done, processing: 4 - done, ..TaskCounts::default() },
        outputs: vec![OutputSummary { name: "daily".to_owned(), keys: 4, in_memory: done, erred: 0, nbytes: 1024 * done }],
        nbytes: 1024 * done,
        workers_running: 1,
        workers_matching: 1,
        ..Summary::default()
    }
}
