//! What a namespace that is served has: the Service and EndpointSlice through which workers and Clients find its scheduler, and
//! the ConfigMap from which workers load the keeper.
//!
//! The Service has no selector: the slice points it at the operator's pod and at the port of that namespace's server.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{ConfigMap, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::api::labels::{FIELD_MANAGER, GROUP, KEEPER_CONFIG_MAP, KEEPER_FILE, MANAGED_BY, SCHEDULER_PORT, SCHEDULER_SERVICE};
use crate::server::KEEPER;

/// The name of the port, which Service and slice must share.
const PORT_NAME: &str = "scheduler";

/// Points `mainstay-scheduler` of a namespace at an address, and puts the keeper there. Gives the Service.
///
/// # Errors
/// When the API server refuses one of the three.
pub async fn apply(client: &Client, namespace: &str, ip: IpAddr, port: u16) -> Result<Service, kube::Error> {
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    let config_maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    config_maps.patch(KEEPER_CONFIG_MAP, &parameters, &Patch::Apply(keeper())).await?;
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
        "metadata": { "name": SCHEDULER_SERVICE, "labels": labels_of(SCHEDULER_SERVICE) },
        "spec": {
            "type": "ClusterIP",
            "ports": [{ "name": PORT_NAME, "protocol": "TCP", "port": SCHEDULER_PORT, "targetPort": port }],
        },
    })
}

fn keeper() -> Value {
    let name = labels_of(KEEPER_CONFIG_MAP);
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": { "name": KEEPER_CONFIG_MAP, "labels": name },
        "data": { KEEPER_FILE: KEEPER },
    })
}

fn slice(ip: IpAddr, port: u16) -> Value {
    let mut labels = labels_of(SCHEDULER_SERVICE);
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

fn labels_of(name: &str) -> Value {
    json!({ MANAGED_BY: "mainstay", "app.kubernetes.io/name": name })
}
