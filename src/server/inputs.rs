//! What collections read of one another: which inputs are there, what is missing and why, and cycles.
//!
//! Pure: a function of what is known of all collections of the namespace. Collections are judged in the order in which they
//! read one another, so that one look tells what a change means for all that depends on it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use crate::server::build_request::Input;
use crate::server::handle::BuildError;

/// Longer cycles and lists are shown with their end left out.
const SHOWN_MAX: usize = 20;
/// How many letters may differ for a name to be suggested.
const TYPING_ERRORS_MAX: usize = 2;

/// The versions of outputs that a graph is made of, by variable.
pub(crate) type Versions = BTreeMap<String, u64>;

/// One collection, as far as others read it.
#[derive(Clone, Debug)]
pub(crate) struct Node<'a> {
    pub(crate) name: &'a str,
    pub(crate) reads: &'a BTreeMap<String, Input>,
    pub(crate) standing: Standing<'a>,
    /// Outputs of the graph that the engine has, with their versions; none if it has no graph.
    pub(crate) outputs: Option<Vec<(&'a str, u64)>>,
    /// What that graph was made of.
    pub(crate) made_of: Option<&'a Versions>,
}

/// How far a collection has come by itself.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Standing<'a> {
    /// The engine has the graph of its latest revision.
    Settled,
    /// Its graph is still to be made.
    UnderWay,
    Failed(&'a BuildError),
}

/// What is to be said of one collection's inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// All are there. `unsettled` is one that may soon be another, because its collection is being built.
    There {
        versions: Versions,
        unsettled: Option<MissingInput>,
    },
    Missing(MissingInput),
    /// The collection is one of these, each of which reads the next, and the last the first.
    Cycle(Vec<String>),
}

/// An input that cannot be used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingInput {
    pub collection: String,
    pub output: String,
    pub why: WhyMissing,
}

/// Why an input cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhyMissing {
    /// Nobody applied a collection of this name, or the controller could not take it.
    NoCollection {
        close: Option<String>,
    },
    /// The collection has a graph, but no such output.
    NoOutput {
        has: Vec<String>,
        close: Option<String>,
    },
    /// Its graph is being made.
    NotBuilt,
    /// Its graph cannot be made. Without the error's own words: they may quote a Secret.
    BuildFailed {
        kind: String,
        line: Option<u32>,
    },
    /// It waits for an input itself.
    Behind(Box<MissingInput>),
    InCycle(Vec<String>),
}

impl MissingInput {
    /// Whether it stays away until somebody edits a collection that is there.
    pub fn is_stuck(&self) -> bool {
        match &self.why {
            WhyMissing::NoOutput { .. } | WhyMissing::BuildFailed { .. } | WhyMissing::InCycle(_) => true,
            WhyMissing::NoCollection { .. } | WhyMissing::NotBuilt => false,
            WhyMissing::Behind(root) => root.is_stuck(),
        }
    }

    /// Whether it stays away unless something is applied.
    pub fn is_hopeless(&self) -> bool {
        match &self.why {
            WhyMissing::NoCollection { .. } => true,
            WhyMissing::Behind(root) => root.is_hopeless(),
            _ => self.is_stuck(),
        }
    }

    fn is_being_built(&self) -> bool {
        match &self.why {
            WhyMissing::NotBuilt => true,
            WhyMissing::Behind(root) => root.is_being_built(),
            _ => false,
        }
    }
}

impl fmt::Display for MissingInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { collection, output, why } = self;
        write!(f, "{collection}/{output}: ")?;
        match why {
            WhyMissing::NoCollection { close } => {
                let hint = hint(close.as_ref());
                write!(f, "there is no PersistedCollection `{collection}`{hint}, or its own status says why it cannot be built")
            }
            WhyMissing::NoOutput { has, close } => {
                let has = if has.is_empty() { "none".to_owned() } else { listed(has, ", ") };
                write!(f, "`{collection}` has no output `{output}`{}; it has {has}", hint(close.as_ref()))
            }
            WhyMissing::NotBuilt => write!(f, "its graph is being made"),
            WhyMissing::BuildFailed { kind, line } => {
                write!(f, "its collection failed: {kind}")?;
                line.map_or(Ok(()), |line| write!(f, " in line {line}"))?;
                write!(f, "; the status of `{collection}` says more")
            }
            WhyMissing::Behind(root) => write!(f, "its collection waits for the input {root}"),
            WhyMissing::InCycle(cycle) => write!(f, "its collection failed: {}", describe_cycle(cycle)),
        }
    }
}

/// The cycle in one sentence: `inputs form a cycle: a → b → a`.
pub fn describe_cycle(cycle: &[String]) -> String {
    let first = cycle.first().map_or("", String::as_str);
    format!("inputs form a cycle: {} → {first}", listed(cycle, " → "))
}

fn listed(names: &[String], between: &str) -> String {
    let mut shown = names.iter().take(SHOWN_MAX).map(String::as_str).collect::<Vec<_>>();
    if names.len() > SHOWN_MAX {
        shown.push("…");
    }
    shown.join(between)
}

fn hint(close: Option<&String>) -> String {
    close.map_or_else(String::new, |close| format!(" (did you mean `{close}`?)"))
}

/// Judges the inputs of all collections; in the order of `nodes`.
pub(crate) fn judge(nodes: &[Node<'_>]) -> Vec<Verdict> {
    let index_of: BTreeMap<&str, usize> = nodes.iter().enumerate().map(|(index, node)| (node.name, index)).collect();
    let upstream: Vec<Vec<usize>> = nodes.iter().map(|node| upstream_of(node, &index_of)).collect();
    let mut downstream = vec![Vec::new(); nodes.len()];
    for (index, read) in upstream.iter().enumerate() {
        read.iter().for_each(|read| downstream[*read].push(index));
    }
    let mut unjudged: Vec<usize> = upstream.iter().map(Vec::len).collect();
    let mut verdicts: Vec<Option<Verdict>> = vec![None; nodes.len()];
    let mut ready: VecDeque<usize> = (0..nodes.len()).filter(|index| unjudged[*index] == 0).collect();
    loop {
        while let Some(index) = ready.pop_front() {
            if verdicts[index].is_none() {
                verdicts[index] = Some(judge_one(&nodes[index], nodes, &index_of, &verdicts));
            }
            for dependent in &downstream[index] {
                unjudged[*dependent] -= 1;
                if unjudged[*dependent] == 0 && verdicts[*dependent].is_none() {
                    ready.push_back(*dependent);
                }
            }
        }
        // What is left reads itself, or something that does.
        let left: BTreeSet<usize> = (0..nodes.len()).filter(|index| verdicts[*index].is_none()).collect();
        if left.is_empty() {
            break;
        }
        for start in &left {
            if verdicts[*start].is_some() {
                continue;
            }
            let Some(cycle) = shortest_cycle(*start, &upstream, &left) else { continue };
            let verdict = Verdict::Cycle(from_the_least(&cycle, nodes));
            for member in cycle.into_iter().filter(|member| verdicts[*member].is_none()).collect::<Vec<_>>() {
                verdicts[member] = Some(verdict.clone());
                ready.push_back(member);
            }
        }
    }
    verdicts.into_iter().flatten().collect()
}

/// The collections that one reads, each once.
fn upstream_of(node: &Node<'_>, index_of: &BTreeMap<&str, usize>) -> Vec<usize> {
    let read: BTreeSet<usize> =
        node.reads.values().filter_map(|input| index_of.get(input.collection.as_str()).copied()).collect();
    read.into_iter().collect()
}

/// Of the cycles through `start` one that is not longer than others.
fn shortest_cycle(start: usize, upstream: &[Vec<usize>], within: &BTreeSet<usize>) -> Option<Vec<usize>> {
    let mut read_by: BTreeMap<usize, usize> = BTreeMap::new();
    let mut pending = VecDeque::from([start]);
    while let Some(index) = pending.pop_front() {
        for read in upstream[index].iter().filter(|read| within.contains(read)) {
            if *read == start {
                let mut cycle = vec![index];
                while let Some(reader) = read_by.get(&cycle[cycle.len() - 1]) {
                    cycle.push(*reader);
                }
                cycle.reverse();
                return Some(cycle);
            }
            if !read_by.contains_key(read) {
                read_by.insert(*read, index);
                pending.push_back(*read);
            }
        }
    }
    None
}

/// The names of a cycle, so that all of its collections say the same.
fn from_the_least(cycle: &[usize], nodes: &[Node<'_>]) -> Vec<String> {
    let mut names: Vec<String> = cycle.iter().map(|index| nodes[*index].name.to_owned()).collect();
    let least = (0..names.len()).min_by_key(|position| &names[*position]).unwrap_or_default();
    names.rotate_left(least);
    names
}

fn judge_one(node: &Node<'_>, nodes: &[Node<'_>], index_of: &BTreeMap<&str, usize>, verdicts: &[Option<Verdict>]) -> Verdict {
    let mut versions = Versions::new();
    let mut unsettled = None;
    for (variable, Input { collection, output }) in node.reads {
        let missing = |why| MissingInput { collection: collection.clone(), output: output.clone(), why };
        let Some(index) = index_of.get(collection.as_str()).copied() else {
            let close = close_to(collection, nodes.iter().map(|node| node.name).filter(|name| *name != node.name));
            return Verdict::Missing(missing(WhyMissing::NoCollection { close }));
        };
        let found = nodes[index].outputs.as_ref().and_then(|outputs| outputs.iter().find(|(name, _)| name == output));
        match (why_unsettled(&nodes[index], verdicts[index].as_ref()), found) {
            (Some(WhyMissing::InCycle(cycle)), _) => return Verdict::Missing(missing(WhyMissing::InCycle(cycle))),
            (Some(why), None) => return Verdict::Missing(missing(why)),
            (None, None) => return Verdict::Missing(missing(why_absent(&nodes[index], output))),
            (why, Some((_, version))) => {
                versions.insert(variable.clone(), *version);
                unsettled = unsettled.or(why.map(missing));
            }
        }
    }
    Verdict::There { versions, unsettled }
}

/// Why a collection may soon have other outputs; none if it has what it will have until somebody edits it.
fn why_unsettled(node: &Node<'_>, verdict: Option<&Verdict>) -> Option<WhyMissing> {
    let is_under_way = matches!(node.standing, Standing::UnderWay);
    match verdict {
        Some(Verdict::Cycle(cycle)) => Some(WhyMissing::InCycle(cycle.clone())),
        Some(Verdict::Missing(missing)) => (is_under_way || missing.is_being_built()).then(|| behind(missing)),
        Some(Verdict::There { unsettled: Some(missing), .. }) => Some(behind(missing)),
        Some(Verdict::There { versions, unsettled: None }) => {
            let is_stale = node.made_of.is_some_and(|made_of| made_of != versions);
            (is_under_way || is_stale).then_some(WhyMissing::NotBuilt)
        }
        None => is_under_way.then_some(WhyMissing::NotBuilt),
    }
}

/// At the end of a chain stands the one input that the whole chain waits for.
fn behind(missing: &MissingInput) -> WhyMissing {
    match &missing.why {
        WhyMissing::Behind(root) => WhyMissing::Behind(root.clone()),
        _ => WhyMissing::Behind(Box::new(missing.clone())),
    }
}

/// Why a collection that has come to rest has no such output.
fn why_absent(node: &Node<'_>, output: &str) -> WhyMissing {
    if let Standing::Failed(error) = node.standing {
        return WhyMissing::BuildFailed { kind: error.kind.clone(), line: error.line };
    }
    let has: Vec<&str> = node.outputs.iter().flatten().map(|(name, _)| *name).collect();
    let close = close_to(output, has.iter().copied());
    WhyMissing::NoOutput { has: has.into_iter().map(str::to_owned).collect(), close }
}

/// The name that was probably meant.
fn close_to<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<String> {
    let (errors, close) = names.map(|other| (strsim::osa_distance(name, other), other)).min()?;
    (errors <= TYPING_ERRORS_MAX && errors < name.chars().count()).then(|| close.to_owned())
}

#[cfg(test)]
mod tests;
