//! Who owns which field of an object.

use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use mainstay::api::PersistedCollection;
use serde_json::{Value, json};

use crate::cluster::{apply, with_namespace};

fn status(phase: &str) -> Value {
    json!({
        "apiVersion": "mainstay.dev/v1alpha1", "kind": "PersistedCollection",
        "metadata": {"name": "it"}, "status": {"phase": phase},
    })
}

#[tokio::test]
async fn status_is_the_operators_and_the_spec_its_users() {
    with_namespace(async |client, namespace| {
        let spec = json!({"source": {"python": "x = 1"}, "collections": ["x"]});
        apply(&client, &namespace, "it", &spec).await.unwrap();
        let collections: Api<PersistedCollection> = Api::namespaced(client.clone(), &namespace);
        let ours = PatchParams::apply("mainstay").force();
        let written = collections.patch_status("it", &ours, &Patch::Apply(status("Running"))).await.unwrap();
        assert_eq!(written.metadata.generation, Some(1), "a status makes no new generation");

        // Another manager is refused, we are not.
        let theirs = PatchParams::apply("somebody");
        let conflict = collections.patch_status("it", &theirs, &Patch::Apply(status("Failed"))).await.unwrap_err();
        assert!(conflict.to_string().contains("conflict"), "{conflict}");
        collections.patch_status("it", &theirs.force(), &Patch::Apply(status("Failed"))).await.unwrap();
        collections.patch_status("it", &ours, &Patch::Apply(status("Running"))).await.unwrap();

        // The user applies again and takes nothing of ours.
        let again = apply(&client, &namespace, "it", &spec).await.unwrap();
        assert_eq!(again["status"]["phase"], "Running");
    })
    .await;
}

#[tokio::test]
async fn status_for_an_object_that_was_seen_earlier_is_refused() {
    with_namespace(async |client, namespace| {
        let spec = json!({"source": {"python": "x = 1"}, "collections": ["x"]});
        let first = apply(&client, &namespace, "it", &spec).await.unwrap();
        let collections: Api<PersistedCollection> = Api::namespaced(client.clone(), &namespace);
        collections.delete("it", &DeleteParams::default()).await.unwrap();
        apply(&client, &namespace, "it", &spec).await.unwrap();
        let mut late = status("Running");
        late["metadata"]["resourceVersion"] = first["metadata"]["resourceVersion"].clone();
        let ours = PatchParams::apply("mainstay").force();
        match collections.patch_status("it", &ours, &Patch::Apply(&late)).await {
            Err(kube::Error::Api(refusal)) => assert_eq!(refusal.code, 409, "{}", refusal.message),
            other => panic!("{other:?}"),
        }
        collections.delete("it", &DeleteParams::default()).await.unwrap();
        match collections.patch_status("it", &ours, &Patch::Apply(&late)).await {
            Err(kube::Error::Api(refusal)) => assert!(matches!(refusal.code, 404 | 409), "{}", refusal.message),
            other => panic!("{other:?}"),
        }
    })
    .await;
}
