//! Names that Mainstay puts on objects, or looks for on them.

/// The API group, and the prefix of every label and annotation.
pub const GROUP: &str = "mainstay.dev";

/// Label on a pod: what its worker is for, `worker` or `builder`. A namespace with such a pod is served.
pub const ROLE: &str = "mainstay.dev/role";
/// Value of `ROLE`: runs tasks.
pub const ROLE_WORKER: &str = "worker";
/// Value of `ROLE`: builds graphs and takes no tasks.
pub const ROLE_BUILDER: &str = "builder";

/// Annotation on a pod: Dask resources of its worker, as `GPU=2 MEMORY=10e9`, like the flag `--resources`.
pub const RESOURCES: &str = "mainstay.dev/resources";

/// Finalizer on a collection: its keys are still to be freed on the workers.
pub const FINALIZER: &str = "mainstay.dev/release";

/// The field manager of everything that the operator applies.
pub const FIELD_MANAGER: &str = "mainstay";

/// `reportingController` of the Events that the operator publishes.
pub const EVENT_CONTROLLER: &str = "mainstay.dev/operator";

/// The Service of a namespace's scheduler, and of its EndpointSlice.
pub const SCHEDULER_SERVICE: &str = "mainstay-scheduler";
/// The port of that Service: Dask's own.
pub const SCHEDULER_PORT: u16 = 8786;

/// The Lease of a namespace: whose holder serves it.
pub const SCHEDULER_LEASE: &str = "mainstay-scheduler";
/// Annotation on it: a number that grows each time that it is taken.
pub const EPOCH: &str = "mainstay.dev/epoch";

/// The ConfigMap of a namespace from which its workers load the keeper.
pub const KEEPER_CONFIG_MAP: &str = "mainstay-keeper";
/// The file in it.
pub const KEEPER_FILE: &str = "keeper.py";

/// Label on what the operator makes.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// The Secret with what workers and Clients of a namespace show, and whom they believe: `ca.crt`, `tls.crt`, `tls.key`.
pub const TLS_SECRET: &str = "mainstay-tls";
/// The Secret with the certificates and keys of a namespace's authorities. Nobody has to mount it.
pub const AUTHORITY_SECRET: &str = "mainstay-ca";
/// Type of `AUTHORITY_SECRET`.
pub const AUTHORITY_SECRET_TYPE: &str = "mainstay.dev/certificate-authority";
