//! What `kubectl explain` reads.

use http::Request;
use serde_json::Value;

use crate::cluster::{await_condition, with_namespace};

#[tokio::test]
async fn every_field_explains_itself() {
    with_namespace(async |client, _| {
        let schema = async || {
            let request = Request::get("/openapi/v3/apis/mainstay.dev/v1alpha1").body(Vec::new()).unwrap();
            let document: Value = client.request(request).await.ok()?;
            document["components"]["schemas"].get("dev.mainstay.v1alpha1.PersistedCollection").cloned()
        };
        await_condition("the schema is published", || async { schema().await.is_some() }).await;
        let schema = schema().await.unwrap();
        let mut faults = Vec::new();
        for part in ["spec", "status"] {
            look_into(part, &schema["properties"][part], &mut faults);
        }
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    })
    .await;
}

/// Collects fields that say nothing, or say it in a way that does not read well in a terminal.
fn look_into(path: &str, schema: &Value, faults: &mut Vec<String>) {
    match schema["description"].as_str() {
        None => faults.push(format!("{path} has no description")),
        Some(text) if text.contains('\n') => faults.push(format!("{path} breaks lines by itself")),
        Some(text) if !text.ends_with(['.', '?']) && !path.contains(".conditions.") => {
            faults.push(format!("{path} ends without a full stop: {text}"));
        }
        Some(_) => {}
    }
    for holder in [schema, &schema["items"], &schema["additionalProperties"]] {
        for (name, field) in holder["properties"].as_object().into_iter().flatten() {
            look_into(&format!("{path}.{name}"), field, faults);
        }
    }
}
