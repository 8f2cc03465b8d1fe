//! The Service and EndpointSlice through which workers and Clients find a namespace's scheduler.
//!
//! The Service has no selector: the slice points it at the operator's pod and at the port of that namespace's server.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::api::labels::{FIELD_MANAGER, GROUP, MANAGED_BY, SCHEDULER_PORT, SCHEDULER_SERVICE};

/// The name of the port, which Service and slice must share.
const PORT_NAME: &str = "scheduler";

/// Points `mainstay-scheduler` of a namespace at an address. Gives the Service.
///
/// # Errors
/// When the API server refuses one of the two.
pub async fn apply(client: &Client, namespace: &str, ip: IpAddr, port: u16) -> Result<Service, kube::Error> {
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let services: Api<Service> = Api::namespaced(client.clone(), namespace);
    let service = services.patch(SCHEDULER_SERVICE, &parameters, &Patch::Apply(service(port))).await?;
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), namespace);
    slices.patch(SCHEDULER_SERVICE, &parameters, &Patch::Apply(slice(ip, port))).await?;
    Ok(service)
}

fn service(port: u16) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": SCHEDULER_SERVICE, "labels": labels() },
        "spec": {
            "type": "ClusterIP",
            "ports": [{ "name": PORT_NAME, "protocol": "TCP", "port": SCHEDULER_PORT, "targetPort": port }],
        },
    })
}

fn slice(ip: IpAddr, port: u16) -> Value {
    let mut labels = labels();
    labels["kubernetes.io/service-name"] = json!(SCHEDULER_SERVICE);
    labels["endpointslice.kubernetes.io/managed-by"] = json!(GROUP);
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": { "name": SCHEDULER_SERVICE, "labels": labels },
        "addressType": if ip.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{ "addresses": [ip.to_string()], "conditions": { "ready": true } }],
        "ports": [{ "name": PORT_NAME, "protocol": "TCP", "port": port }],
    })
}

fn labels() -> Value {
    json!({ MANAGED_BY: "mainstay", "app.kubernetes.io/name": SCHEDULER_SERVICE })
}
