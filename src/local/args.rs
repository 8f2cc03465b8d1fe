//! The command line of `mainstay local`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args;

use crate::engine::{Amount, Resources};

/// Runs collections on child workers of this machine, without Kubernetes, and serves Dask Clients.
///
/// With -f it applies the PersistedCollections of the file, shows their progress, and keeps serving what they persist until it
/// is stopped. Without -f and with --workers 0 it is a scheduler to which `dask worker` and Clients connect.
#[derive(Args, Clone, Debug)]
pub struct LocalArgs {
    /// A manifest with PersistedCollections, and ConfigMaps or Secrets that they refer to; may be given several times
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// How many `dask worker` processes to start [default: as many as give each processor one thread]
    #[arg(long, value_name = "N")]
    pub workers: Option<usize>,

    /// Threads of each worker
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: u32,

    /// What each worker offers, such as GPU=2 or "GPU=2 IO=0.5" [default: as much as the manifests' tasks take on all threads]
    #[arg(long, value_name = "NAME=AMOUNT", value_parser = parse_resources)]
    pub resources: Option<Resources>,

    /// Labels that stand for those of a worker's pod, such as disk=nvme or disk=nvme,zone=a [default: those that the manifests
    /// match]
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_labels)]
    pub labels: Option<Labels>,

    /// Start one more worker, only for building graphs
    #[arg(long)]
    pub builder: bool,

    /// Where to listen
    #[arg(long, default_value = "127.0.0.1")]
    pub host: IpAddr,

    /// Where to listen; 0 takes any free port
    #[arg(long, default_value_t = 8786)]
    pub port: u16,

    /// Encrypt comms; certificates of these authorities are believed (a file in PEM, as for `dask scheduler`)
    #[arg(long, value_name = "FILE", requires_all = ["tls_cert", "tls_key"])]
    pub tls_ca_file: Option<PathBuf>,

    /// Our certificate, which child workers have as well
    #[arg(long, value_name = "FILE", requires = "tls_ca_file")]
    pub tls_cert: Option<PathBuf>,

    /// Its private key
    #[arg(long, value_name = "FILE", requires = "tls_ca_file")]
    pub tls_key: Option<PathBuf>,

    /// The Python that has dask and distributed [default: python3, then python, of the PATH]
    #[arg(long, value_name = "PROGRAM")]
    pub python: Option<PathBuf>,

    /// Exit when all collections are persisted, with 1 if one failed
    #[arg(long, requires = "files")]
    pub once: bool,
}

/// Labels by name.
pub(super) type Labels = BTreeMap<String, String>;

/// `GPU=2 IO=0.5`, also with commas, as `dask worker --resources` takes it.
fn parse_resources(text: &str) -> Result<Resources, String> {
    let mut resources = Resources::default();
    for (name, amount) in pairs(text)? {
        let number: f64 = amount.parse().map_err(|_| format!("{name}={amount}: `{amount}` is no number"))?;
        let amount = Amount::from_f64(number).map_err(|error| format!("{name}={amount}: {error}"))?;
        resources.0.insert(name.to_owned(), amount);
    }
    Ok(resources)
}

/// `disk=nvme,zone=a`
fn parse_labels(text: &str) -> Result<Labels, String> {
    Ok(pairs(text)?.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

fn pairs(text: &str) -> Result<Vec<(&str, &str)>, String> {
    let parts = text.split([',', ' ']).map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| match part.split_once('=') {
            Some((name, value)) if !name.is_empty() => Ok((name, value)),
            _ => Err(format!("`{part}` must look like NAME=VALUE")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_and_labels_are_lists_of_pairs() {
        assert_eq!(parse_resources("GPU=2 IO=0.5").unwrap().to_string(), "GPU: 2, IO: 0.5");
        assert_eq!(
            parse_labels("disk=nvme,zone=").unwrap(),
            Labels::from([("disk".into(), "nvme".into()), ("zone".into(), String::new())])
        );
    }

    #[test]
    fn what_is_no_pair_is_named() {
        assert_eq!(parse_labels("disk"), Err("`disk` must look like NAME=VALUE".to_owned()));
        assert_eq!(parse_resources("GPU=many"), Err("GPU=many: `many` is no number".to_owned()));
    }
}
