//! Two operators share a namespace: whatever happens to the one that serves it, the other takes over.
//!
//! Real processes with real signals; none of them has workers. Each accepts connections at a port of its own, by which the
//! Service tells them apart.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};
use mainstay::api::PersistedCollection;
use mainstay::comm::Connection;
use mainstay::wire::encode_message;
use mainstay::wire::messages::Ask;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::cluster::{KUBECONFIG, apply, await_condition, with_namespace};

/// From the word to end on, until the Service leads to the other.
const AFTER_END: Duration = Duration::from_secs(3);
/// The same after a crash.
const AFTER_CRASH: Duration = Duration::from_secs(20);
const PATIENCE: Duration = Duration::from_secs(5);

struct Operator {
    process: Child,
    pod: String,
    port: u16,
}

impl Operator {
    /// Starts one that looks after a namespace, and waits until it is ready.
    async fn start(namespace: &str) -> Self {
        static STARTED: AtomicU16 = AtomicU16::new(0);
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let (http, port) = (free_port(), free_port());
        let pod = format!("pod-{number}");
        let process = Command::new(env!("CARGO_BIN_EXE_mainstay"))
            .args(["operator", "--pod-ip=10.0.0.7", "--plain-namespaces=*", "--log-level=warn"])
            .args([format!("--pod-name={pod}"), format!("--namespaces={namespace}")])
            .args([format!("--http-port={http}"), format!("--port-from={port}")])
            .env("KUBECONFIG", std::env::var(KUBECONFIG).unwrap())
            .stdout(Stdio::inherit())
            .spawn()
            .unwrap();
        let operator = Self { process, pod, port };
        await_condition("an operator is ready", || is_ready(http)).await;
        operator
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        self.process.wait().unwrap();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

async fn is_ready(port: u16) -> bool {
    let Ok(mut stream) = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).await else { return false };
    let request = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut stream, request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.starts_with("HTTP/1.1 200")
}

/// A namespace, as its Lease and its Service show it.
struct Scene {
    leases: Api<Lease>,
    slices: Api<EndpointSlice>,
}

impl Scene {
    fn of(client: &Client, namespace: &str) -> Self {
        Self { leases: Api::namespaced(client.clone(), namespace), slices: Api::namespaced(client.clone(), namespace) }
    }

    /// Waits until an operator serves; gives how long that took, and its epoch.
    async fn await_served(&self, by: &Operator) -> (Duration, u64) {
        let begun = Instant::now();
        await_condition(&format!("the Service leads to {}", by.pod), || async {
            let slice = self.slices.get_opt("mainstay-scheduler").await.unwrap();
            let ports = slice.and_then(|slice| slice.ports).unwrap_or_default();
            ports.iter().any(|port| port.port == Some(by.port.into()))
        })
        .await;
        let taken = begun.elapsed();
        let lease = self.leases.get("mainstay-scheduler").await.unwrap();
        let holder = lease.spec.as_ref().unwrap().holder_identity.clone().unwrap();
        assert_eq!(holder.rsplit_once('_').unwrap().0, by.pod);
        (taken, lease.annotations()["mainstay.dev/epoch"].parse().unwrap())
    }
}

/// Asks a scheduler who it is.
async fn ask(comm: &mut Connection) {
    comm.sender.send(encode_message(&Ask::new("identity"))).await.unwrap();
}

/// A comm with a scheduler that answers.
async fn connect(operator: &Operator) -> Connection {
    let stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], operator.port))).await.unwrap();
    let mut comm = Connection::connect(stream, None, PATIENCE).await.unwrap();
    ask(&mut comm).await;
    assert!(comm.receiver.receive().await.unwrap().is_some());
    comm
}

#[tokio::test]
async fn a_namespace_always_has_one_operator() {
    with_namespace(async |client, namespace| {
        let scene = Scene::of(&client, &namespace);
        let first = Operator::start(&namespace).await;
        let (_, epoch) = scene.await_served(&first).await;
        let second = Operator::start(&namespace).await;
        let mut epochs = vec![epoch];

        first.signal(Signal::TERM);
        let (taken, epoch) = scene.await_served(&second).await;
        assert!(taken < AFTER_END, "{taken:?} after the end of the first");
        epochs.push(epoch);

        let third = Operator::start(&namespace).await;
        second.signal(Signal::KILL);
        let (taken, epoch) = scene.await_served(&third).await;
        assert!(taken < AFTER_CRASH, "{taken:?} after the crash of the second");
        epochs.push(epoch);

        let fourth = Operator::start(&namespace).await;
        let mut comm = connect(&third).await;
        third.signal(Signal::STOP);
        ask(&mut comm).await;
        let (taken, epoch) = scene.await_served(&fourth).await;
        assert!(taken < AFTER_CRASH, "{taken:?} after the third was stopped");
        epochs.push(epoch);
        // It drops its comms without another word, and does not point the Service at itself.
        third.signal(Signal::CONT);
        let said = timeout(PATIENCE, comm.receiver.receive()).await.expect("the third drops its comms");
        assert!(!matches!(said, Ok(Some(_))), "{said:?}");
        assert_eq!(scene.await_served(&fourth).await.1, epoch);

        // What was deposed stands by.
        fourth.signal(Signal::TERM);
        let lost = Instant::now();
        await_condition("the third serves again", || async {
            let lease = scene.leases.get("mainstay-scheduler").await.unwrap();
            lease.spec.unwrap().holder_identity.is_some_and(|holder| holder.starts_with(&third.pod))
        })
        .await;
        assert!(lost.elapsed() < AFTER_END);
        assert!(epochs.is_sorted_by(|one, next| one < next), "{epochs:?}");
    })
    .await;
}

#[tokio::test]
async fn a_stopped_operator_goes_on_where_nobody_has_taken_over() {
    with_namespace(async |client, namespace| {
        let scene = Scene::of(&client, &namespace);
        let operator = Operator::start(&namespace).await;
        let (_, epoch) = scene.await_served(&operator).await;
        let mut comm = connect(&operator).await;
        operator.signal(Signal::STOP);
        ask(&mut comm).await;
        let renewed = renewed(&scene).await;
        // Longer than a Lease is good for.
        tokio::time::sleep(Duration::from_secs(16)).await;
        operator.signal(Signal::CONT);
        await_condition("the Lease is renewed", || async { self::renewed(&scene).await > renewed }).await;
        assert_eq!(scene.await_served(&operator).await.1, epoch);
        let said = timeout(PATIENCE, comm.receiver.receive()).await.expect("it answers what it was asked meanwhile");
        assert!(said.unwrap().is_some());
    })
    .await;
}

async fn renewed(scene: &Scene) -> String {
    let lease = scene.leases.get("mainstay-scheduler").await.unwrap();
    serde_json::to_value(lease.spec.unwrap().renew_time).unwrap().to_string()
}

#[tokio::test]
async fn only_who_has_the_lease_writes_to_objects() {
    with_namespace(async |client, namespace| {
        let scene = Scene::of(&client, &namespace);
        // Somebody else has it, and renews it.
        let holder = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": "mainstay-scheduler", "annotations": {"mainstay.dev/epoch": "9000000000000"}},
            "spec": {"holderIdentity": "elsewhere_1", "leaseDurationSeconds": 15},
        });
        let parameters = PatchParams::apply("elsewhere").force();
        scene.leases.patch("mainstay-scheduler", &parameters, &Patch::Apply(holder)).await.unwrap();
        let spec = json!({"source": {"python": "x = 1"}, "collections": ["x"]});
        apply(&client, &namespace, "it", &spec).await.unwrap();
        let operator = Operator::start(&namespace).await;
        let collections: Api<PersistedCollection> = Api::namespaced(client.clone(), &namespace);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(18) {
            let now = json!({"spec": {"leaseTransitions": begun.elapsed().as_secs()}});
            scene.leases.patch("mainstay-scheduler", &PatchParams::default(), &Patch::Merge(now)).await.unwrap();
            let it = collections.get("it").await.unwrap();
            assert!(it.status.is_none() && it.finalizers().is_empty());
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        // Given back, it is taken at once; epochs go on from where they were.
        let free = json!({"spec": {"holderIdentity": null}});
        scene.leases.patch("mainstay-scheduler", &PatchParams::default(), &Patch::Merge(free)).await.unwrap();
        assert_eq!(scene.await_served(&operator).await.1, 9_000_000_000_001);
        await_condition("the object is taken", || async { collections.get("it").await.unwrap().status.is_some() }).await;
    })
    .await;
}
