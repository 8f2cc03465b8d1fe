//! The command line of `mainstay operator`.

use std::net::IpAddr;

use clap::Args;

use crate::telemetry::LogFormat;

/// Runs the operator: watches PersistedCollections and keeps what they ask for in the memory of worker pods.
#[derive(Args, Clone, Debug)]
pub struct OperatorArgs {
    /// Only these namespaces, and no right needed in others [default: all]
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub namespaces: Vec<String>,

    /// Where health and metrics are served
    #[arg(long, default_value_t = 8080)]
    pub http_port: u16,

    /// The first port for schedulers; each namespace takes the next free one
    #[arg(long, default_value_t = 8786)]
    pub port_from: u16,

    /// How log lines look
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// What is logged: error, warn, info, debug, or a filter such as info,mainstay::server=debug
    #[arg(long, default_value = "info")]
    pub log_level: String,

    /// The address of this pod, at which workers and Clients reach the schedulers
    #[arg(long, env = "POD_IP", value_name = "IP")]
    pub pod_ip: IpAddr,

    /// The name of this pod, which Events mention
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub pod_name: Option<String>,
}
