//! Conditions for some of a collection's tasks, chosen by patterns of their keys.
//!
//! Apart from the graph, so that they can change while it runs. They go before what the source said of a task, and that goes
//! before what the collection says of all. Of several that match a task the later wins, field by field.

use std::sync::Arc;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use rustc_hash::FxHashMap;
use thiserror::Error;

use crate::dask::TaskKey;
use crate::engine::Annotations;

/// Most overrides of one collection: one bit each in `Matches`.
pub const OVERRIDES_MAX: usize = 64;
/// How many names are looked through for one that was perhaps meant.
const NAMES_COMPARED_MAX: usize = 1000;
/// How like a pattern's fixed text a name must be to be suggested; 1 is equal.
const LIKENESS_MIN: f64 = 0.6;

/// Which overrides match a task: bit `i` for the `i`th.
pub(super) type Matches = u64;

/// What is asked for the tasks whose key matches a pattern.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Override {
    /// A shell pattern: `*`, `?`, `[ab]`, `[!ab]`, `{a,b}`. It has to match the name that the manifest gives an inline task;
    /// of other tasks the key as it is shown, its name (the first element of a tuple) or its prefix (the name without the
    /// hash).
    pub keys: String,
    /// The fields that are given.
    pub conditions: Annotations,
}

/// The overrides of a collection with their patterns compiled; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Overrides(Option<Arc<Compiled>>);

/// Why overrides cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum OverridesError {
    #[error("there are {found} overrides, more than {OVERRIDES_MAX}")]
    TooMany { found: usize },
    #[error("`{pattern}` is no pattern: {what}")]
    Pattern { index: usize, pattern: String, what: String },
}

#[derive(Debug)]
struct Compiled {
    list: Vec<Override>,
    patterns: GlobSet,
    /// The patterns that can match the text of a tuple as a whole, with their places in `list`.
    patterns_of_tuples: GlobSet,
    places_of_tuples: Vec<usize>,
}

impl Overrides {
    /// # Errors
    /// When there are too many, or a pattern is none.
    pub fn new(list: Vec<Override>) -> Result<Self, OverridesError> {
        if list.len() > OVERRIDES_MAX {
            return Err(OverridesError::TooMany { found: list.len() });
        }
        if list.is_empty() {
            return Ok(Self::default());
        }
        let all: Vec<usize> = (0..list.len()).collect();
        let places_of_tuples: Vec<usize> = all.iter().copied().filter(|index| may_match_tuples(&list[*index].keys)).collect();
        let (patterns, patterns_of_tuples) = (compile(&list, &all)?, compile(&list, &places_of_tuples)?);
        Ok(Self(Some(Arc::new(Compiled { list, patterns, patterns_of_tuples, places_of_tuples }))))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub fn as_slice(&self) -> &[Override] {
        self.0.as_ref().map_or(&[], |compiled| &compiled.list)
    }

    pub(super) fn matcher(&self) -> Option<Matcher<'_>> {
        let compiled = self.0.as_deref()?;
        Some(Matcher { compiled, by_name: FxHashMap::default(), by_prefix: FxHashMap::default(), found: Vec::new() })
    }

    /// What holds for a task of which the source said `own`, and that these overrides match.
    pub(super) fn apply(&self, own: Option<&Annotations>, matches: Matches) -> Annotations {
        let mut result = own.cloned().unwrap_or_default();
        let matching = self.as_slice().iter().enumerate().filter(|(index, _)| matches >> index & 1 == 1);
        for (_, Override { conditions, keys: _ }) in matching {
            let Annotations { retries, priority, workers, allow_other_workers, resources, executor } = conditions;
            result.retries = retries.or(result.retries);
            result.priority = priority.or(result.priority);
            result.workers = workers.as_ref().or(result.workers.as_ref()).cloned();
            result.allow_other_workers = allow_other_workers.or(result.allow_other_workers);
            result.resources = resources.as_ref().or(result.resources.as_ref()).cloned();
            result.executor = executor.as_ref().or(result.executor.as_ref()).cloned();
        }
        result
    }
}

impl PartialEq for Overrides {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

/// Matches keys one by one, but what they have in common once.
pub(super) struct Matcher<'a> {
    compiled: &'a Compiled,
    /// For the first elements of tuples: all chunks of an array share theirs.
    by_name: FxHashMap<&'a str, Matches>,
    by_prefix: FxHashMap<String, Matches>,
    found: Vec<usize>,
}

impl<'a> Matcher<'a> {
    /// The overrides that match a task; `given` is the name that the manifest gives it.
    pub(super) fn matches(&mut self, key: &'a TaskKey, given: Option<&str>) -> Matches {
        if let Some(given) = given {
            return self.of_text(given);
        }
        if let Some(text) = key.as_text() {
            return self.of_text(text) | self.of_prefix(key);
        }
        let of_name = match key.name() {
            None => 0,
            Some(name) => match self.by_name.get(name) {
                Some(known) => *known,
                None => {
                    let found = self.of_text(name) | self.of_prefix(key);
                    self.by_name.insert(name, found);
                    found
                }
            },
        };
        of_name | self.of_tuple(key)
    }

    fn of_text(&mut self, text: &str) -> Matches {
        self.compiled.patterns.matches_into(text, &mut self.found);
        self.found.iter().fold(0, |matches, index| matches | 1 << index)
    }

    fn of_prefix(&mut self, key: &TaskKey) -> Matches {
        let prefix = key.prefix();
        if let Some(known) = self.by_prefix.get(&*prefix) {
            return *known;
        }
        let found = self.of_text(&prefix);
        self.by_prefix.insert(prefix.into_owned(), found);
        found
    }

    fn of_tuple(&mut self, key: &TaskKey) -> Matches {
        if self.compiled.places_of_tuples.is_empty() {
            return 0;
        }
        self.compiled.patterns_of_tuples.matches_into(key.to_string(), &mut self.found);
        self.found.iter().fold(0, |matches, index| matches | 1 << self.compiled.places_of_tuples[*index])
    }
}

/// Of these names the one that was perhaps meant by a pattern that matches none.
pub(super) fn closest<'n>(pattern: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let fixed: String = pattern.chars().filter(|letter| !"*?[]{}!".contains(*letter)).collect();
    let fixed = fixed.trim_matches('-');
    let likeness = |name: &'n str| (strsim::normalized_damerau_levenshtein(fixed, name), name);
    let near = names.take(NAMES_COMPARED_MAX).map(likeness).filter(|(likeness, _)| *likeness >= LIKENESS_MIN);
    near.max_by(|left, right| left.0.total_cmp(&right.0).then_with(|| right.1.cmp(left.1))).map(|(_, name)| name)
}

/// Tuples are shown in parentheses, so few patterns can match one as a whole.
fn may_match_tuples(pattern: &str) -> bool {
    pattern.starts_with(['(', '*', '?', '[', '{', '\\']) && pattern.ends_with([')', '*', '?', ']', '}'])
}

fn compile(list: &[Override], places: &[usize]) -> Result<GlobSet, OverridesError> {
    let mut set = GlobSetBuilder::new();
    for index in places {
        let pattern = &list[*index].keys;
        let wrong = |what: String| OverridesError::Pattern { index: *index, pattern: pattern.clone(), what };
        if pattern.is_empty() {
            return Err(wrong("it is empty".to_owned()));
        }
        // Keys have no folders: two stars mean no more than one.
        let mut one_star = pattern.clone();
        while one_star.contains("**") {
            one_star = one_star.replace("**", "*");
        }
        let glob = GlobBuilder::new(&one_star).backslash_escape(true).build().map_err(|error| wrong(error.kind().to_string()))?;
        set.add(glob);
    }
    let whole = |error: globset::Error| OverridesError::Pattern {
        index: 0,
        pattern: error.glob().unwrap_or_default().to_owned(),
        what: error.kind().to_string(),
    };
    set.build().map_err(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overrides(patterns: &[&str]) -> Overrides {
        let list = patterns.iter().map(|keys| Override { keys: (*keys).to_owned(), conditions: Annotations::default() });
        Overrides::new(list.collect()).unwrap()
    }

    fn tuple(name: &str, index: u8) -> TaskKey {
        let mut encoded = vec![0x92, 0xa0 | name.len() as u8];
        encoded.extend(name.as_bytes());
        encoded.push(index);
        TaskKey::from_msgpack(encoded).unwrap()
    }

    #[test]
    fn a_pattern_matches_the_key_its_name_or_its_prefix() {
        let text = TaskKey::from_text("load-0a1b2c3d");
        let chunk = tuple("load-0a1b2c3d", 7);
        for (pattern, of_text, of_chunk) in [
            ("load-0a1b2c3d", true, true),
            ("load", true, true),
            ("load-*", true, true),
            ("lo?d", true, true),
            ("[kl]oad*", true, true),
            ("[!k]oad*", true, true),
            ("{store,load}-*", true, true),
            ("('load-*', 7)", false, true),
            ("('load-*', 8)", false, false),
            ("*, 7)", false, true),
            ("(*", false, true),
            ("**", true, true),
            ("*", true, true),
            ("oad", false, false),
            ("Load*", false, false),
            ("load-", false, false),
            ("", false, false),
        ] {
            if pattern.is_empty() {
                continue;
            }
            let overrides = overrides(&["x", pattern]);
            let mut matcher = overrides.matcher().unwrap();
            assert_eq!(matcher.matches(&text, None), u64::from(of_text) << 1, "{pattern} and a text");
            assert_eq!(matcher.matches(&chunk, None), u64::from(of_chunk) << 1, "{pattern} and a tuple");
        }
    }

    #[test]
    fn an_inline_task_goes_by_the_name_that_the_manifest_gives_it() {
        let key = TaskKey::from_text("load-0-5f2a");
        let overrides = overrides(&["load-0", "load-0-*", "load"]);
        assert_eq!(overrides.matcher().unwrap().matches(&key, Some("load-0")), 0b1);
    }

    #[test]
    fn of_several_overrides_the_later_wins_field_by_field() {
        let conditions = |retries, priority| Annotations { retries, priority, ..Annotations::default() };
        let list = [(Some(1), Some(1.0)), (Some(2), None), (Some(3), None)];
        let list = list.map(|(retries, priority)| Override { keys: "*".to_owned(), conditions: conditions(retries, priority) });
        let overrides = Overrides::new(list.to_vec()).unwrap();
        let own = Annotations { executor: Some("offload".to_owned()), ..conditions(Some(9), Some(9.0)) };
        let found = overrides.apply(Some(&own), 0b011);
        assert_eq!((found.retries, found.priority, found.executor.as_deref()), (Some(2), Some(1.0), Some("offload")));
        assert_eq!(overrides.apply(Some(&own), 0), own);
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for pattern in ["", "load-[", "{a,b", "[z-a]"] {
            let list = vec![Override { keys: pattern.to_owned(), conditions: Annotations::default() }];
            assert!(matches!(Overrides::new(list), Err(OverridesError::Pattern { index: 0, .. })), "{pattern}");
        }
    }

    #[test]
    fn a_name_that_was_perhaps_meant_is_found() {
        let names = ["load", "clean", "sum-aggregate"];
        for (pattern, meant) in [("laod-*", Some("load")), ("sum-agregate", Some("sum-aggregate")), ("x*", None)] {
            assert_eq!(closest(pattern, names.into_iter()), meant, "{pattern}");
        }
    }
}
