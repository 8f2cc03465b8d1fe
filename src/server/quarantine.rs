//! Keeps out hosts whose workers have broken the protocol again and again.
//!
//! Once is a mistake: the connection ends, and the worker may come again.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// So often may a host's workers break it
const STRIKES_MAX: usize = 3;
/// within this time; then they are kept out until the first of these times is so long ago.
const PERIOD: Duration = Duration::from_secs(600);
/// Hosts remembered. Only registered workers can get here.
const HOSTS_MAX: usize = 10_000;

/// When each host's workers broke the protocol.
#[derive(Debug, Default)]
pub(crate) struct Quarantine(Mutex<BTreeMap<IpAddr, Vec<Instant>>>);

impl Quarantine {
    /// A worker of this host has said what no worker says.
    pub(crate) fn strike(&self, host: IpAddr, now: Instant) {
        // All that runs on our own machine would be kept out together.
        if host == Ipv4Addr::LOCALHOST || host == Ipv6Addr::LOCALHOST {
            return;
        }
        let mut hosts = self.hosts(now);
        if hosts.len() < HOSTS_MAX || hosts.contains_key(&host) {
            hosts.entry(host).or_default().push(now);
        }
    }

    /// How long a host is kept out, if it is.
    pub(crate) fn keeps_out(&self, host: IpAddr, now: Instant) -> Option<Duration> {
        let hosts = self.hosts(now);
        let strikes = hosts.get(&host).filter(|strikes| strikes.len() >= STRIKES_MAX)?;
        let oldest = strikes[strikes.len() - STRIKES_MAX];
        Some(PERIOD.saturating_sub(now.duration_since(oldest)))
    }

    /// Without what is long ago.
    fn hosts(&self, now: Instant) -> MutexGuard<'_, BTreeMap<IpAddr, Vec<Instant>>> {
        let mut hosts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.retain(|_, strikes| {
            strikes.retain(|at| now.duration_since(*at) < PERIOD);
            !strikes.is_empty()
        });
        hosts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_time_keeps_out_until_the_first_is_long_ago() {
        let (quarantine, start) = (Quarantine::default(), Instant::now());
        let host = "10.0.0.7".parse().unwrap();
        let at = |seconds| start + Duration::from_secs(seconds);
        for seconds in [0, 100] {
            quarantine.strike(host, at(seconds));
            assert_eq!(quarantine.keeps_out(host, at(seconds)), None);
        }
        quarantine.strike(host, at(200));
        assert_eq!(quarantine.keeps_out(host, at(200)), Some(Duration::from_secs(400)));
        assert_eq!(quarantine.keeps_out("10.0.0.8".parse().unwrap(), at(200)), None);
        assert_eq!(quarantine.keeps_out(host, at(600)), None);
        assert!(quarantine.hosts(at(1000)).is_empty());
    }
}
