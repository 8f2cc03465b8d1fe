//! Under which conditions tasks run.

use std::collections::BTreeMap;
use std::fmt;

use thiserror::Error;

use crate::engine::{Overrides, WorkerProfile};

/// Most names of workers that a selector shows.
const NAMES_SHOWN_MAX: usize = 5;

/// What `persist` was asked with, for every task of a graph of which nothing else is said.
#[derive(Clone, Debug, PartialEq)]
pub struct Requirements {
    /// Which workers may run the tasks; `None` allows all.
    pub workers: Option<WorkerSelector>,
    /// Prefer `workers` instead of requiring them. Never loosens `resources`.
    pub allow_other_workers: bool,
    /// What each task takes from its worker while it runs.
    pub resources: Resources,
    /// How often a failed task is run again.
    pub retries: u32,
    /// Higher runs first.
    pub priority: f64,
    /// How many workers are to hold each output; of collections alone.
    pub replicas: u32,
    /// Graphs that arrive within this time of the last one share its generation.
    pub fifo_timeout_ms: u64,
    /// What single tasks are asked with instead, by patterns of their keys.
    pub overrides: Overrides,
}

impl Default for Requirements {
    fn default() -> Self {
        Self {
            workers: None,
            allow_other_workers: false,
            resources: Resources::default(),
            retries: 0,
            priority: 0.0,
            replicas: 1,
            fifo_timeout_ms: 60_000,
            overrides: Overrides::default(),
        }
    }
}

/// Selects workers by the labels of their pods and by name; evaluated whenever a task is placed.
///
/// Labels and names must both match when both are given.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerSelector {
    pub match_labels: BTreeMap<String, String>,
    pub match_expressions: Vec<LabelExpression>,
    /// Pod names, worker names, hosts or addresses; empty means any.
    pub names: Vec<String>,
}

impl WorkerSelector {
    /// Whether a worker is one of those meant.
    pub fn matches(&self, profile: &WorkerProfile) -> bool {
        let named = self.names.is_empty() || self.names.iter().any(|name| is_called(profile, name));
        let labelled = self.match_labels.iter().all(|(key, value)| profile.labels.get(key) == Some(value));
        named && labelled && self.match_expressions.iter().all(|expression| expression.matches(&profile.labels))
    }
}

/// As kubectl writes selectors: `disk=nvme,zone in (a,b),!old`, and the names after it.
impl fmt::Display for WorkerSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { match_labels, match_expressions, names } = self;
        let mut parts: Vec<String> = match_labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        parts.extend(match_expressions.iter().map(|LabelExpression { key, operator, values }| match operator {
            Operator::In => format!("{key} in ({})", values.join(",")),
            Operator::NotIn => format!("{key} notin ({})", values.join(",")),
            Operator::Exists => key.clone(),
            Operator::DoesNotExist => format!("!{key}"),
        }));
        if !names.is_empty() {
            let more = if names.len() > NAMES_SHOWN_MAX { ",…" } else { "" };
            parts.push(format!("name in ({}{more})", names[..names.len().min(NAMES_SHOWN_MAX)].join(",")));
        }
        f.write_str(&parts.join(","))
    }
}

fn is_called(profile: &WorkerProfile, name: &str) -> bool {
    let address = &profile.address;
    profile.name == name
        || profile.pod.as_deref() == Some(name)
        || [address.as_str(), address.host_and_port(), address.host()].contains(&name)
}

/// One requirement on a label, as in Kubernetes' label selectors.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LabelExpression {
    pub key: String,
    pub operator: Operator,
    pub values: Vec<String>,
}

impl LabelExpression {
    /// As Kubernetes has it, a label that is not there is in no set.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let is_in = labels.get(&self.key).is_some_and(|value| self.values.contains(value));
        match self.operator {
            Operator::In => is_in,
            Operator::NotIn => !is_in,
            Operator::Exists => labels.contains_key(&self.key),
            Operator::DoesNotExist => !labels.contains_key(&self.key),
        }
    }
}

/// How a label expression compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl Operator {
    pub const ALL: [Self; 4] = [Self::In, Self::NotIn, Self::Exists, Self::DoesNotExist];

    /// As Kubernetes writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::In => "In",
            Self::NotIn => "NotIn",
            Self::Exists => "Exists",
            Self::DoesNotExist => "DoesNotExist",
        }
    }
}

/// Amounts of abstract resources: `GPU: 2`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resources(pub BTreeMap<String, Amount>);

/// An amount of a resource in millionths, so that sums of fractions are exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(u64);

/// Why a number is no amount of a resource.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum AmountError {
    #[error("found {found}, but an amount is a number from 0 to {max}", max = Amount::MAX.as_f64())]
    OutOfRange { found: f64 },
}

impl Amount {
    const MILLIONTHS: f64 = 1e6;
    /// Larger amounts would lose exactness on the wire, where they are floats.
    pub const MAX: Self = Self(1_000_000_000_000_000_000);

    /// Rounds to the nearest millionth.
    ///
    /// # Errors
    /// When the number is negative, too large or not a number.
    pub fn from_f64(number: f64) -> Result<Self, AmountError> {
        let millionths = (number * Self::MILLIONTHS).round();
        if !(0.0..=Self::MAX.0 as f64).contains(&millionths) {
            return Err(AmountError::OutOfRange { found: number });
        }
        Ok(Self(millionths as u64))
    }

    pub const fn as_f64(self) -> f64 {
        self.0 as f64 / Self::MILLIONTHS
    }

    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_f64())
    }
}

impl Resources {
    pub fn is_empty(&self) -> bool {
        self.0.values().all(|amount| amount.is_zero())
    }

    pub fn get(&self, name: &str) -> Amount {
        self.0.get(name).copied().unwrap_or_default()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, Amount)> + Clone {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    /// Whether both ask for some of the same resource.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.iter().any(|(name, amount)| !amount.is_zero() && !other.get(name).is_zero())
    }

    /// Whether `self` has at least what `needed` asks of every resource.
    pub fn covers(&self, needed: &Self) -> bool {
        needed.iter().all(|(name, amount)| self.get(name) >= amount)
    }
}

impl fmt::Display for Resources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, amount)) in self.iter().enumerate() {
            write!(f, "{}{name}: {amount}", if index == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dask::WorkerAddress;

    #[test]
    fn fractions_of_a_resource_add_up_exactly() {
        let tenth = Amount::from_f64(0.1).unwrap();
        let sum = tenth.saturating_add(tenth).saturating_add(tenth);
        assert_eq!(sum, Amount::from_f64(0.3).unwrap());
        assert_eq!(sum.to_string(), "0.3");
    }

    fn profile(labels: &[(&str, &str)]) -> WorkerProfile {
        WorkerProfile {
            address: WorkerAddress::new("tcp://10.0.0.7:40001"),
            name: "w-0".to_owned(),
            pod: Some("pod-0".to_owned()),
            node: None,
            nthreads: 1,
            memory_limit: None,
            resources: Resources::default(),
            labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            builder: false,
        }
    }

    #[test]
    fn a_worker_goes_by_its_name_its_pod_its_host_and_its_address() {
        let profile = profile(&[]);
        for name in ["w-0", "pod-0", "10.0.0.7", "10.0.0.7:40001", "tcp://10.0.0.7:40001"] {
            let selector = WorkerSelector { names: vec!["other".to_owned(), name.to_owned()], ..WorkerSelector::default() };
            assert!(selector.matches(&profile), "{name}");
        }
        let selector = WorkerSelector { names: vec!["w".to_owned()], ..WorkerSelector::default() };
        assert!(!selector.matches(&profile));
    }

    #[test]
    fn a_label_expression_means_what_it_means_in_kubernetes() {
        let expression = |operator, values: &[&str]| {
            let values = values.iter().map(|value| (*value).to_owned()).collect();
            let match_expressions = vec![LabelExpression { key: "disk".to_owned(), operator, values }];
            WorkerSelector { match_expressions, ..WorkerSelector::default() }
        };
        let (nvme, none) = (profile(&[("disk", "nvme")]), profile(&[]));
        for (selector, has_it, has_none) in [
            (expression(Operator::In, &["ssd", "nvme"]), true, false),
            (expression(Operator::In, &["ssd"]), false, false),
            (expression(Operator::NotIn, &["nvme"]), false, true),
            (expression(Operator::Exists, &[]), true, false),
            (expression(Operator::DoesNotExist, &[]), false, true),
        ] {
            assert_eq!((selector.matches(&nvme), selector.matches(&none)), (has_it, has_none), "{selector:?}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for number in [-1.0, f64::NAN, f64::INFINITY, 1e13] {
            assert!(Amount::from_f64(number).is_err(), "{number}");
        }
    }
}
