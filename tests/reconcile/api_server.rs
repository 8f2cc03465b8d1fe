//! The scripted API server.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Method, Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

/// Holds one collection and what it refers to; answers as the real one would, as far as the controller can tell.
#[derive(Clone, Default)]
pub(crate) struct ApiServer(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    collection: Value,
    version: u64,
    /// ConfigMaps and Secrets by path.
    objects: BTreeMap<String, Value>,
    /// Status codes to answer the next requests with, by the first word of their line.
    refusals: Vec<(String, u16)>,
    lines: Vec<String>,
    bodies: String,
}

impl ApiServer {
    pub(crate) fn holding(collection: Value) -> Self {
        Self(Arc::new(Mutex::new(State { collection, version: 1, ..State::default() })))
    }

    pub(crate) fn client(&self) -> Client {
        let state = Arc::clone(&self.0);
        let service = tower::service_fn(move |request: Request<Body>| {
            let state = Arc::clone(&state);
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                let path_and_query = parts.uri.path_and_query().unwrap().as_str().to_owned();
                let (code, answer) = state.lock().unwrap().answer(&parts.method, &path_and_query, &body);
                let response = Response::builder().status(code).body(Body::from(serde_json::to_vec(&answer).unwrap()));
                Ok::<_, Infallible>(response.unwrap())
            }
        });
        Client::new(service, "default")
    }

    /// The object as the cache would show it.
    pub(crate) fn collection(&self) -> Value {
        self.0.lock().unwrap().collection.clone()
    }

    /// Somebody changes the object.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Value)) {
        let mut state = self.0.lock().unwrap();
        change(&mut state.collection);
        state.touch();
    }

    pub(crate) fn put(&self, path: &str, object: Value) {
        self.0.lock().unwrap().objects.insert(path.to_owned(), object);
    }

    /// Answers the next request whose line begins so with an error.
    pub(crate) fn refuse(&self, line: &str, code: u16) {
        self.0.lock().unwrap().refusals.push((line.to_owned(), code));
    }

    /// The requests since the last call, each in one line.
    pub(crate) fn lines(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().lines)
    }

    /// All that was ever sent, for what must never be.
    pub(crate) fn everything_sent(&self) -> String {
        self.0.lock().unwrap().bodies.clone()
    }
}

impl State {
    fn answer(&mut self, method: &Method, path: &str, body: &[u8]) -> (StatusCode, Value) {
        self.bodies.push_str(&String::from_utf8_lossy(body));
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let (line, answer) = self.act(method, path, &body);
        let refused = self.refusals.iter().position(|(begin, _)| line.starts_with(begin));
        self.lines.push(line);
        if let Some(index) = refused {
            let (_, code) = self.refusals.remove(index);
            return status(code);
        }
        match answer {
            Some(answer) => (StatusCode::OK, answer),
            None => status(404),
        }
    }

    /// What a request is, in one line, and its answer. A refused one has changed the state: nothing looks at it then.
    fn act(&mut self, method: &Method, path: &str, body: &Value) -> (String, Option<Value>) {
        const COLLECTION: &str = "/apis/mainstay.dev/v1alpha1/namespaces/analytics/persistedcollections/daily";
        if method == Method::PATCH && path == format!("{COLLECTION}/status?&force=true&fieldManager=mainstay") {
            let seen = &body["metadata"]["resourceVersion"];
            assert_eq!(*seen, self.collection["metadata"]["resourceVersion"], "a status is for the object that was seen");
            self.collection["status"] = body["status"].clone();
            self.touch();
            return (format!("status {}", show_status(&body["status"])), Some(self.collection.clone()));
        }
        if method == Method::PATCH && path == format!("{COLLECTION}?&fieldManager=mainstay") {
            let metadata = &body["metadata"];
            let line = format!("finalizers {} at version {}", metadata["finalizers"], text(&metadata["resourceVersion"]));
            self.collection["metadata"]["finalizers"] = metadata["finalizers"].clone();
            self.touch();
            return (line, Some(self.collection.clone()));
        }
        if path.starts_with("/apis/events.k8s.io/v1/namespaces/analytics/events") {
            let line = format!("event {} {}: {}", text(&body["type"]), text(&body["reason"]), text(&body["note"]));
            return (line, Some(body.clone()));
        }
        (format!("{method} {path}"), self.objects.get(path).cloned())
    }

    fn touch(&mut self) {
        self.version += 1;
        self.collection["metadata"]["resourceVersion"] = json!(self.version.to_string());
    }
}

/// Phase, generation and the conditions that are not as they were expected: `Running@1 Ready=False/Running …`.
fn show_status(status: &Value) -> String {
    let conditions = status["conditions"].as_array().unwrap();
    let show = |type_: &str| {
        let condition = conditions.iter().find(|condition| condition["type"] == type_).unwrap();
        format!("{type_}={}/{}", text(&condition["status"]), text(&condition["reason"]))
    };
    format!("{}@{} {}", text(&status["phase"]), status["observedGeneration"], show("Ready"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn status(code: u16) -> (StatusCode, Value) {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        _ => "InternalError",
    };
    let body = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason,
    });
    (StatusCode::from_u16(code).unwrap(), body)
}
