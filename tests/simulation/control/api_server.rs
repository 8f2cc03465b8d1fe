//! A model of the API server: objects of one kind with one log of versions, and watches that follow it.

use std::collections::BTreeMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::trouble::{Fate, Trouble};
use crate::random::Random;

const COLLECTIONS: &str = "/apis/mainstay.dev/v1alpha1/namespaces/analytics/persistedcollections";
/// How long a request hangs that nobody answers.
const HANG: Duration = Duration::from_secs(20);
/// A status never grows beyond this.
const STATUS_BYTES_MAX: usize = 256 * 1024;
/// Of one object: so many at once, and one a second.
const WRITES_AT_ONCE: usize = 5;

#[derive(Clone)]
pub(crate) struct ApiServer(Arc<Mutex<State>>);

pub(crate) struct State {
    pub(crate) objects: BTreeMap<String, Value>,
    version: u64,
    uids: u32,
    log: Vec<(u64, &'static str, Value)>,
    /// Versions up to here are forgotten.
    compacted: u64,
    watches: Vec<mpsc::UnboundedSender<Bytes>>,
    pub(crate) random: Random,
    pub(crate) trouble: Trouble,
    /// Views are so many versions old, and stay as they are.
    pub(crate) behind: Option<usize>,
    /// What was written, when, and to which object.
    pub(crate) writes: Vec<(Duration, String, String)>,
    began: Instant,
    /// Called before and after each write that is done, with its number.
    pub(crate) crash_at: Option<(usize, bool)>,
    pub(crate) crash: Arc<tokio::sync::Notify>,
    pub(crate) is_told: bool,
}

/// What is answered.
enum Reply {
    Whole(Option<Bytes>),
    Lines(mpsc::UnboundedReceiver<Bytes>),
}

impl http_body::Body for Reply {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut *self {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Lines(lines) => lines.poll_recv(context).map(|line| line.map(|line| Ok(Frame::data(line)))),
        }
    }
}

impl ApiServer {
    pub(crate) fn new(random: Random, trouble: Trouble) -> Self {
        Self(Arc::new(Mutex::new(State {
            objects: BTreeMap::new(),
            version: 1,
            uids: 0,
            log: Vec::new(),
            compacted: 0,
            watches: Vec::new(),
            random,
            trouble,
            behind: None,
            writes: Vec::new(),
            began: Instant::now(),
            crash_at: None,
            crash: Arc::default(),
            is_told: std::env::var_os("TRACE").is_some(),
        })))
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("nobody panicked with it")
    }

    pub(crate) fn client(&self) -> Client {
        let api = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let api = api.clone();
            async move { api.serve(request).await }
        });
        Client::new(service, "analytics")
    }

    async fn serve(&self, request: Request<Body>) -> Result<Response<Reply>, io::Error> {
        let (parts, body) = request.into_parts();
        let body = body.collect_bytes().await.map_err(io::Error::other)?;
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let path = parts.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
        let (fate, delay) = {
            let mut state = self.state();
            let State { random, trouble, .. } = &mut *state;
            let drawn = (trouble.fate(random), trouble.delay(random));
            state.tell(&format!("{} {path} is {:?}", parts.method, drawn.0));
            drawn
        };
        sleep(delay).await;
        match fate {
            Fate::Served => Ok(self.state().answer(&parts.method, &path, &body)),
            Fate::Refused(code) => Ok(refusal(code)),
            Fate::Unanswered => {
                self.state().answer(&parts.method, &path, &body);
                Err(io::Error::other("the connection was lost"))
            }
            Fate::Hangs => {
                sleep(HANG).await;
                Err(io::Error::other("no answer"))
            }
        }
    }
}

impl State {
    fn answer(&mut self, method: &Method, path: &str, body: &Value) -> Response<Reply> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let Some(rest) = path.strip_prefix(COLLECTIONS) else {
            // Events are told and forgotten.
            return if path.contains("/events") { whole(200, body) } else { refusal(404) };
        };
        match (method, rest) {
            (&Method::GET, "") if query.contains("watch=true") => self.watch(query),
            (&Method::GET, "") => self.list(),
            (&Method::PATCH, name) => {
                let (name, is_status) = name.strip_suffix("/status").map_or((name, false), |name| (name, true));
                self.write(name.trim_start_matches('/'), is_status, body)
            }
            _ => refusal(404),
        }
    }

    fn list(&self) -> Response<Reply> {
        let (version, objects) = self.view();
        let items: Vec<&Value> = objects.values().collect();
        whole(
            200,
            &json!({
                "apiVersion": "mainstay.dev/v1alpha1", "kind": "PersistedCollectionList",
                "metadata": {"resourceVersion": version.to_string()}, "items": items,
            }),
        )
    }

    /// Whether an object was taken and is not deleted, whatever is served.
    pub(crate) fn is_kept(&self, uid: &str) -> bool {
        let object = self.objects.values().find(|object| object["metadata"]["uid"] == uid);
        let has_finalizer = |object: &Value| object["metadata"]["finalizers"].as_array().is_some_and(|all| !all.is_empty());
        object.is_some_and(|object| object["metadata"]["deletionTimestamp"].is_null() && has_finalizer(object))
    }

    /// What was taken and is not deleted.
    pub(crate) fn kept(&self) -> Vec<String> {
        let uids = self.objects.values().filter_map(|object| object["metadata"]["uid"].as_str());
        uids.filter(|uid| self.is_kept(uid)).map(str::to_owned).collect()
    }

    /// What an operator before this one has taken is known before anything is dropped that nobody needs.
    pub(crate) fn check_all_known(&self, taken_before: &[String], is_known: impl Fn(&str) -> bool) {
        let unknown = taken_before.iter().find(|uid| self.is_kept(uid) && !is_known(uid));
        assert!(unknown.is_none() || self.behind.is_some(), "{unknown:?} is unknown to the server when all is said to be known");
    }

    /// Now and then, as long as things go wrong.
    pub(crate) fn loses_a_result(&mut self) -> bool {
        self.trouble.is_any() && self.random.one_in(400)
    }

    /// What is served: the newest, or what it was some versions ago.
    fn view(&self) -> (u64, BTreeMap<String, Value>) {
        let Some(behind) = self.behind else { return (self.version, self.objects.clone()) };
        let shown = self.log.len().saturating_sub(behind);
        let mut objects = BTreeMap::new();
        for (_, kind, object) in &self.log[..shown] {
            let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            if *kind == "DELETED" { _ = objects.remove(&name) } else { _ = objects.insert(name, object.clone()) }
        }
        (self.log[..shown].last().map_or(1, |(version, ..)| *version), objects)
    }

    fn watch(&mut self, query: &str) -> Response<Reply> {
        let from = query.split('&').find_map(|part| part.strip_prefix("resourceVersion=")).and_then(|from| from.parse().ok());
        let from: u64 = from.unwrap_or_default();
        let (sender, mut written) = mpsc::unbounded_channel();
        let (shower, lines) = mpsc::unbounded_channel();
        let lag = self.trouble.lag(&mut self.random);
        tokio::spawn(async move {
            while let Some(line) = written.recv().await {
                sleep(lag).await;
                if shower.send(line).is_err() {
                    return;
                }
            }
        });
        if from < self.compacted {
            // It says so on the stream, which ends then. The other end is in this reply.
            let _ = sender.send(line("ERROR", &failure(410)));
            return Response::new(Reply::Lines(lines));
        }
        let shown = self.log.len().saturating_sub(self.behind.unwrap_or_default());
        for (_, kind, object) in self.log[..shown].iter().filter(|(version, ..)| *version > from) {
            // The other end is in this reply.
            let _ = sender.send(line(kind, object));
        }
        self.watches.push(sender);
        Response::new(Reply::Lines(lines))
    }

    fn write(&mut self, name: &str, is_status: bool, body: &Value) -> Response<Reply> {
        self.note_write(name, is_status, body);
        if self.crash_now(false) {
            return refusal(503);
        }
        let Some(object) = self.objects.get(name) else { return refusal(404) };
        let (wanted, metadata) = (&body["metadata"], &object["metadata"]);
        let differs = |field: &str| !wanted[field].is_null() && wanted[field] != metadata[field];
        if differs("resourceVersion") || (!is_status && differs("uid")) {
            return refusal(409);
        }
        let mut new = object.clone();
        if is_status {
            check_status(object, &body["status"]);
            new["status"] = body["status"].clone();
        } else {
            new["metadata"]["finalizers"] = wanted["finalizers"].clone();
        }
        if new != *object {
            self.store(name, new);
        }
        let stored = self.objects.get(name).unwrap_or(&self.log.last().expect("it was written").2).clone();
        self.crash_now(true);
        whole(200, &stored)
    }

    /// Whether the operator ends here: before the write is done, or after.
    fn crash_now(&mut self, after: bool) -> bool {
        let now = self.crash_at == Some((self.writes.len(), after));
        if now {
            self.crash_at = None;
            self.crash.notify_one();
        }
        now
    }

    fn note_write(&mut self, name: &str, is_status: bool, body: &Value) {
        let what = if is_status {
            format!("status {} {}", body["status"]["phase"], body["status"]["observedGeneration"])
        } else {
            format!("finalizers {}", body["metadata"]["finalizers"])
        };
        let now = self.began.elapsed();
        self.tell(&format!("{name}: {what}"));
        self.writes.push((now, name.to_owned(), what));
        let minute = Duration::from_secs(60);
        let recent = self.writes.iter().filter(|(at, other, _)| other == name && now - *at < minute).count();
        assert!(recent <= WRITES_AT_ONCE + 60, "{name} is written {recent} times in a minute");
    }

    #[expect(clippy::print_stderr, reason = "what a failing run is looked into by")]
    pub(crate) fn tell(&self, text: &str) {
        if self.is_told {
            eprintln!("{:?} {text}", self.began.elapsed());
        }
    }

    /// Takes a new state of an object, with what the server itself does about it.
    fn store(&mut self, name: &str, mut object: Value) {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let finalizers = object["metadata"]["finalizers"].as_array().map_or(0, Vec::len);
        let is_gone = !object["metadata"]["deletionTimestamp"].is_null() && finalizers == 0;
        let kind = match self.objects.get(name) {
            _ if is_gone => "DELETED",
            Some(_) => "MODIFIED",
            None => "ADDED",
        };
        if is_gone {
            self.objects.remove(name);
        } else {
            self.objects.insert(name.to_owned(), object.clone());
        }
        self.log.push((self.version, kind, object.clone()));
        match &mut self.behind {
            Some(behind) => *behind += 1,
            None => self.show(kind, &object),
        }
    }

    /// Tells all watches, each after a while of its own; in order.
    fn show(&mut self, kind: &str, object: &Value) {
        if self.random.one_in(self.trouble.watch_cut) {
            self.watches.clear();
            return;
        }
        self.watches.retain(|watch| watch.send(line(kind, object)).is_ok());
    }

    /// Nothing that happens from here on is shown.
    pub(crate) fn hide(&mut self) {
        self.behind = Some(0);
    }

    pub(crate) fn versions(&self) -> usize {
        self.log.len()
    }

    /// From here on the newest is served; watches begin anew.
    pub(crate) fn catch_up(&mut self) {
        self.behind = None;
        self.watches.clear();
    }

    /// Forgets old versions, and ends all watches, as a server does that is restarted.
    pub(crate) fn compact(&mut self) {
        self.compacted = self.version;
        self.watches.clear();
    }

    // Users.

    pub(crate) fn create(&mut self, name: &str) {
        if self.objects.contains_key(name) {
            return;
        }
        self.uids += 1;
        let object = json!({
            "apiVersion": "mainstay.dev/v1alpha1", "kind": "PersistedCollection",
            "metadata": {
                "name": name, "namespace": "analytics", "uid": format!("uid-{}", self.uids), "generation": 1,
                "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": {"source": {"python": "daily = 1"}, "collections": ["daily"]},
        });
        self.store(name, object);
    }

    pub(crate) fn edit(&mut self, name: &str, edit: impl FnOnce(&mut Value)) {
        let Some(mut object) = self.objects.get(name).cloned() else { return };
        let generation = object["metadata"]["generation"].as_i64().unwrap_or_default();
        edit(&mut object["spec"]);
        object["metadata"]["generation"] = json!(generation + 1);
        self.store(name, object);
    }

    pub(crate) fn delete(&mut self, name: &str) {
        let Some(mut object) = self.objects.get(name).cloned() else { return };
        if object["metadata"]["deletionTimestamp"].is_null() {
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T01:00:00Z");
            self.store(name, object);
        }
    }

    /// Somebody else writes something that is not ours.
    pub(crate) fn label(&mut self, name: &str) {
        let Some(mut object) = self.objects.get(name).cloned() else { return };
        object["metadata"]["labels"] = json!({"seen": self.version.to_string()});
        self.store(name, object);
    }
}

/// What a status says is so, and never less than before.
fn check_status(object: &Value, status: &Value) {
    let generation = |value: &Value| value["observedGeneration"].as_i64().unwrap_or_default();
    let (before, after) = (generation(&object["status"]), generation(status));
    assert!(after <= object["metadata"]["generation"].as_i64().unwrap_or_default(), "a spec is claimed that nobody wrote");
    assert!(after >= before, "the observed generation goes back from {before} to {after}");
    assert!(status.to_string().len() <= STATUS_BYTES_MAX, "the status grows");
}

fn line(kind: &str, object: &Value) -> Bytes {
    let mut line = json!({"type": kind, "object": object}).to_string();
    line.push('\n');
    line.into()
}

fn whole(code: u16, body: &Value) -> Response<Reply> {
    let mut response = Response::new(Reply::Whole(Some(body.to_string().into())));
    *response.status_mut() = StatusCode::from_u16(code).expect("a status code");
    response
}

fn refusal(code: u16) -> Response<Reply> {
    whole(code, &failure(code))
}

fn failure(code: u16) -> Value {
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    json!({"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason})
}
