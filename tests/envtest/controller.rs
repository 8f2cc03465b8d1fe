//! The controller as it runs, against a server that is stood in for.

use std::sync::{Arc, RwLock};

use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client, ResourceExt};
use mainstay::api::PersistedCollection;
use mainstay::api::conditions::find;
use mainstay::controller::{Changes, Context, NamespaceChange, Servers, endpoint, run, validate};
use mainstay::engine::{OutputSummary, Summary, TaskCounts};
use mainstay::server::{Fence, OutputInfo, Report, Stage, StandIn};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::cluster::{apply, await_condition, with_namespace};

struct Running {
    stand_in: StandIn,
    reports: mpsc::UnboundedSender<String>,
    controller: JoinHandle<()>,
    _namespaces: mpsc::UnboundedSender<NamespaceChange>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.controller.abort();
    }
}

fn start(client: &Client, namespace: &str) -> Running {
    let (handle, stand_in) = StandIn::new();
    let servers = Servers::default();
    servers.hold(namespace, Fence::default());
    servers.insert(namespace, handle);
    let pods = Arc::new(RwLock::default());
    let context = Arc::new(Context::new(client.clone(), Some("envtest".to_owned()), servers, pods));
    let (reports, reported) = mpsc::unbounded_channel();
    let (namespaces, changed) = mpsc::unbounded_channel();
    let changes = Changes { reports: reported, namespaces: changed };
    let controller = tokio::spawn(run(context, vec![namespace.to_owned()], changes));
    Running { stand_in, reports, controller, _namespaces: namespaces }
}

impl Running {
    /// The server says that a collection is in memory.
    fn persist(&self, collection: &PersistedCollection, text: Option<&str>) {
        let uid = collection.uid().unwrap();
        let validated = validate::validate(&collection.name_any(), &collection.spec, text.map(str::to_owned)).unwrap();
        let report = Report {
            generation: collection.metadata.generation.unwrap(),
            revision: validated.revision,
            stage: Stage::Accepted,
            summary: Some(Box::new(Summary {
                tasks: TaskCounts { total: 1, done: 1, memory: 1, ..TaskCounts::default() },
                outputs: vec![OutputSummary { name: "x".to_owned(), keys: 1, in_memory: 1, erred: 0, nbytes: 28 }],
                nbytes: 28,
                workers_running: 1,
                workers_matching: 1,
                ..Summary::default()
            })),
            outputs: vec![OutputInfo { name: "x".to_owned(), type_name: "int".to_owned(), keys: 1 }],
            refusal: None,
            lost_workers: Vec::new(),
            missing_input: None,
            is_remade: false,
        };
        self.stand_in.publish(&uid, report);
        self.reports.send(uid).unwrap();
    }
}

fn spec() -> Value {
    json!({"source": {"python": "x = 1"}, "collections": ["x"]})
}

fn condition(collection: &PersistedCollection, type_: &str) -> Option<(String, String)> {
    let condition = find(&collection.status.as_ref()?.conditions, type_)?;
    Some((condition.status.clone(), condition.reason.clone()))
}

async fn await_ready(collections: &Api<PersistedCollection>, status: &str, reason: &str) -> PersistedCollection {
    let wanted = Some((status.to_owned(), reason.to_owned()));
    await_condition(&format!("Ready={status}/{reason}"), || async {
        collections.get_opt("it").await.unwrap().is_some_and(|collection| condition(&collection, "Ready") == wanted)
    })
    .await;
    collections.get("it").await.unwrap()
}

async fn reasons_of_events(client: &Client, namespace: &str) -> Vec<String> {
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    let events = events.list(&ListParams::default()).await.unwrap();
    let mut reasons: Vec<String> = events.into_iter().filter_map(|event| event.reason).collect();
    reasons.sort();
    reasons
}

#[tokio::test]
async fn collection_lives_from_apply_to_delete_and_again() {
    with_namespace(async |client, namespace| {
        let mut running = start(&client, &namespace);
        let collections: Api<PersistedCollection> = Api::namespaced(client.clone(), &namespace);
        apply(&client, &namespace, "it", &spec()).await.unwrap();
        let first = await_ready(&collections, "Unknown", "Accepted").await;
        await_condition("the finalizer is on", || async { !collections.get("it").await.unwrap().finalizers().is_empty() }).await;
        running.persist(&first, None);
        let persisted = await_ready(&collections, "True", "Persisted").await;
        assert_eq!(persisted.status.as_ref().unwrap().observed_generation, Some(1));
        assert_eq!(condition(&persisted, "Reconciling").unwrap().0, "False");

        collections.delete("it", &DeleteParams::default()).await.unwrap();
        let uid = first.uid().unwrap();
        let mut taken = Vec::new();
        await_condition("the server is told to let go", || {
            taken.extend(running.stand_in.taken());
            let told = taken.contains(&format!("remove {uid}"));
            async move { told }
        })
        .await;
        assert!(collections.get_opt("it").await.unwrap().is_some(), "it is held until its memory is free");
        running.stand_in.withdraw(&uid);
        running.reports.send(uid.clone()).unwrap();
        await_condition("it is gone", || async { collections.get_opt("it").await.unwrap().is_none() }).await;

        apply(&client, &namespace, "it", &spec()).await.unwrap();
        let second = await_ready(&collections, "Unknown", "Accepted").await;
        assert_ne!(second.uid().unwrap(), uid);
        running.persist(&second, None);
        await_ready(&collections, "True", "Persisted").await;

        // Events are published after the status that they tell of.
        await_condition("both lives are told of, and nothing else", || async {
            reasons_of_events(&client, &namespace).await
                == ["GraphAccepted", "GraphAccepted", "Persisted", "Persisted", "Released"]
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn nothing_is_written_to_an_object_that_is_as_it_should_be() {
    with_namespace(async |client, namespace| {
        let running = start(&client, &namespace);
        let collections: Api<PersistedCollection> = Api::namespaced(client.clone(), &namespace);
        apply(&client, &namespace, "it", &spec()).await.unwrap();
        let collection = await_ready(&collections, "Unknown", "Accepted").await;
        running.persist(&collection, None);
        let version = await_ready(&collections, "True", "Persisted").await.resource_version();
        // Long enough for two writes, had there been any.
        for _ in 0..50 {
            running.reports.send(collection.uid().unwrap()).unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        assert_eq!(collections.get("it").await.unwrap().resource_version(), version);

        // A controller that starts anew takes it as it is.
        drop(running);
        let running = start(&client, &namespace);
        running.persist(&collection, None);
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        assert_eq!(collections.get("it").await.unwrap().resource_version(), version);
    })
    .await;
}

#[tokio::test]
async fn config_map_is_picked_up_when_it_appears() {
    with_namespace(async |client, namespace| {
        let running = start(&client, &namespace);
        let collections: Api<PersistedCollection> = Api::namespaced(client.clone(), &namespace);
        let spec = json!({"source": {"pythonFrom": {"configMapKeyRef": {"name": "text", "key": "x.py"}}}, "collections": ["x"]});
        apply(&client, &namespace, "it", &spec).await.unwrap();
        let collection = await_ready(&collections, "False", "SourceNotFound").await;
        assert_eq!(condition(&collection, "Stalled").unwrap().0, "False");

        let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
        let text = serde_json::from_value(json!({"metadata": {"name": "text"}, "data": {"x.py": "x = 1"}})).unwrap();
        config_maps.create(&Default::default(), &text).await.unwrap();
        await_condition("it is taken", || async { !collections.get("it").await.unwrap().finalizers().is_empty() }).await;
        running.persist(&collection, Some("x = 1"));
        await_ready(&collections, "True", "Persisted").await;
    })
    .await;
}

#[tokio::test]
async fn scheduler_of_a_namespace_has_a_service() {
    with_namespace(async |client, namespace| {
        for port in [40_001, 40_002] {
            endpoint::apply(&client, &namespace, "10.0.0.7".parse().unwrap(), port).await.unwrap();
        }
        let services: Api<Service> = Api::namespaced(client.clone(), &namespace);
        let service = services.get("mainstay-scheduler").await.unwrap();
        let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), &namespace);
        let slice = slices.get("mainstay-scheduler").await.unwrap();
        let ports = service.spec.unwrap().ports.unwrap();
        assert_eq!((ports.len(), ports[0].port), (1, 8786));
        assert_eq!(slice.endpoints.unwrap()[0].addresses, ["10.0.0.7"]);
        assert_eq!(slice.ports.unwrap().iter().map(|port| port.port).collect::<Vec<_>>(), [Some(40_002)]);
    })
    .await;
}
