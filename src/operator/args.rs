//! The command line of `mainstay operator`.

use std::net::IpAddr;
use std::time::Duration;

use clap::Args;

use crate::dask::parse_timedelta;
use crate::telemetry::LogFormat;

/// Shorter lives end before everybody has the next certificate.
const LIFETIME_SECONDS_MIN: f64 = 60.0;
/// Ten years: an authority lives twenty times as long.
const LIFETIME_SECONDS_MAX: f64 = 10.0 * 366.0 * 86_400.0;

/// Runs the operator: watches PersistedCollections and keeps what they ask for in the memory of worker pods.
#[derive(Args, Clone, Debug)]
pub struct OperatorArgs {
    /// Only these namespaces, and no right needed in others [default: all]
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub namespaces: Vec<String>,

    /// Also watch nodes, so that what is on a node that is going is moved in time
    #[arg(long)]
    pub watch_nodes: bool,

    /// Where health and metrics are served
    #[arg(long, default_value_t = 8080)]
    pub http_port: u16,

    /// The first port for schedulers; each namespace takes the next free one
    #[arg(long, default_value_t = 8786)]
    pub port_from: u16,

    /// Namespaces whose comms are plain TCP; `*` stands for all. In the others they are encrypted
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub plain_namespaces: Vec<String>,

    /// How long certificates of workers and Clients are valid; they are renewed when a third of it is over
    #[arg(long, default_value = "90d", value_name = "DURATION", value_parser = parse_lifetime)]
    pub certificate_lifetime: Duration,

    /// How log lines look
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,

    /// What is logged: error, warn, info, debug, or a filter such as info,mainstay::server=debug
    #[arg(long, default_value = "info")]
    pub log_level: String,

    /// The address of this pod, at which workers and Clients reach the schedulers
    #[arg(long, env = "POD_IP", value_name = "IP")]
    pub pod_ip: IpAddr,

    /// The name of this pod, which Events and Leases mention
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub pod_name: Option<String>,
}

impl OperatorArgs {
    /// Whether the comms of a namespace are plain TCP.
    pub(super) fn is_plain(&self, namespace: &str) -> bool {
        self.plain_namespaces.iter().any(|plain| plain == "*" || plain == namespace)
    }
}

/// `90d`, or as Dask writes durations.
fn parse_lifetime(text: &str) -> Result<Duration, String> {
    match parse_timedelta(text) {
        Ok(seconds) if (LIFETIME_SECONDS_MIN..=LIFETIME_SECONDS_MAX).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        Ok(_) => Err("it must be between a minute and ten years".to_owned()),
        Err(_) => Err("it must look like 90d or 12h".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_live_between_a_minute_and_ten_years() {
        assert_eq!(parse_lifetime("90d"), Ok(Duration::from_secs(90 * 86_400)));
        assert!(["59s", "11000d", "x", ""].iter().all(|text| parse_lifetime(text).is_err()));
    }
}
