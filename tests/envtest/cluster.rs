//! The API server, with our CRD, and a namespace for each test.

use std::future::Future;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use mainstay::api::PersistedCollection;
use serde_json::{Value, json};

pub(crate) const KUBECONFIG: &str = "MAINSTAY_TEST_KUBECONFIG";
const CRD: &str = "persistedcollections.mainstay.dev";

/// Runs a test in a namespace of its own, which goes afterwards.
pub(crate) async fn with_namespace<F, Fut>(test: F)
where
    F: FnOnce(Client, String) -> Fut,
    Fut: Future<Output = ()>,
{
    static NAMESPACES: AtomicU32 = AtomicU32::new(0);
    let client = client().await;
    install_crd(&client).await;
    let name = format!("envtest-{}-{}", std::process::id(), NAMESPACES.fetch_add(1, Ordering::Relaxed));
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    test(client, name.clone()).await;
    // Nothing empties a namespace where no controller manager runs; its name is not used again.
    namespaces.delete(&name, &DeleteParams::default()).await.unwrap();
}

async fn client() -> Client {
    let path = std::env::var(KUBECONFIG).unwrap_or_else(|_| {
        panic!("{KUBECONFIG} is not set: run `make envtest`, or `dev/cluster --api up` and set it to the path that it prints")
    });
    let kubeconfig = Kubeconfig::read_from(&path).unwrap_or_else(|error| panic!("{KUBECONFIG}={path}: {error}"));
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

async fn install_crd(client: &Client) {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let crd: Value = serde_saphyr::from_str(&mainstay::api::crds()).unwrap();
    crds.patch(CRD, &PatchParams::apply("envtest").force(), &Patch::Apply(crd)).await.unwrap();
    await_condition("the CRD is established", || async {
        let crd = crds.get(CRD).await.unwrap();
        let conditions = crd.status.and_then(|status| status.conditions).unwrap_or_default();
        conditions.iter().any(|condition| condition.type_ == "Established" && condition.status == "True")
    })
    .await;
    let collections: Api<PersistedCollection> = Api::all(client.clone());
    await_condition("collections are served", || async { collections.list_metadata(&Default::default()).await.is_ok() }).await;
}

/// Waits until a condition holds; fails with what was awaited.
pub(crate) async fn await_condition<F, Fut>(what: &str, mut holds: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < deadline, "waited 30 s in vain: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Applies a collection as kubectl would, a misspelt field being an error. Returns what was stored, or the message.
pub(crate) async fn apply(client: &Client, namespace: &str, name: &str, spec: &Value) -> Result<Value, String> {
    let resource = kube::api::ApiResource::erase::<PersistedCollection>(&());
    let collections: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    let object = json!({
        "apiVersion": "mainstay.dev/v1alpha1", "kind": "PersistedCollection",
        "metadata": {"name": name, "namespace": namespace}, "spec": spec,
    });
    let parameters =
        PatchParams { field_validation: Some(kube::api::ValidationDirective::Strict), ..PatchParams::apply("kubectl") };
    match collections.patch(name, &parameters, &Patch::Apply(object)).await {
        Ok(stored) => Ok(serde_json::to_value(stored).unwrap()),
        Err(kube::Error::Api(status)) => Err(status.message),
        Err(error) => panic!("{error}"),
    }
}
