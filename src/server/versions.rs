//! Tells who registers when its packages are not those of the workers: what one pickles, another may not read.
//!
//! The words are those of the stock scheduler, but for its own column: there is no Python here.
//!
//! Source: distributed 2026.8.0, versions.py: `error_message`; utils.py: `asciitable`.

use std::collections::{BTreeMap, BTreeSet};

use crate::wire::value::Value;

/// A table of the packages that differ, from the field `versions` of each; empty if none does.
pub(crate) fn mismatches<'a>(who: &str, theirs: &Value, workers: impl Iterator<Item = &'a Value>) -> String {
    // Most workers have the same.
    let mut different: Vec<&[(Value, Value)]> = Vec::new();
    for packages in workers.map(packages) {
        if !different.contains(&packages) {
            different.push(packages);
        }
    }
    let theirs = packages(theirs);
    if theirs.is_empty() || different.is_empty() || different == [theirs] {
        return String::new();
    }
    let (theirs, workers) = (texts(theirs), different.into_iter().map(texts).collect::<Vec<_>>());
    let names: BTreeSet<&String> = workers.iter().flat_map(BTreeMap::keys).chain(theirs.keys()).collect();
    let mut rows = vec![["Package".to_owned(), who.to_owned(), "Workers".to_owned()]];
    for name in names {
        let version = |packages: &BTreeMap<String, String>| packages.get(name).map_or("MISSING".to_owned(), Clone::clone);
        let found: BTreeSet<String> = workers.iter().map(version).collect();
        let own = version(&theirs);
        if found.iter().any(|found| *found != own) {
            rows.push([name.clone(), own, found.into_iter().collect::<Vec<_>>().join(", ")]);
        }
    }
    if rows.len() == 1 { String::new() } else { format!("Mismatched versions found\n\n{}", table(&rows)) }
}

fn packages(versions: &Value) -> &[(Value, Value)] {
    versions.get("packages").and_then(Value::as_map).unwrap_or_default()
}

/// Versions by package.
fn texts(packages: &[(Value, Value)]) -> BTreeMap<String, String> {
    // What is not installed is nil.
    let text = |version: &Value| version.as_text().unwrap_or("None").to_owned();
    packages.iter().filter_map(|(name, version)| Some((name.as_text()?.to_owned(), text(version)))).collect()
}

/// The rows with lines around them; the first is the head.
fn table(rows: &[[String; 3]]) -> String {
    let widths = [0, 1, 2].map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default());
    let bar = format!("+{}+", widths.map(|width| "-".repeat(width + 2)).join("+"));
    let [first, second, third] = widths;
    let lines = rows.iter().map(|[one, two, three]| format!("| {one:first$} | {two:second$} | {three:third$} |"));
    let mut lines: Vec<String> = lines.collect();
    lines.insert(1, bar.clone());
    lines.insert(0, bar.clone());
    lines.push(bar);
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn versions(distributed: &str, numpy: Value) -> Value {
        Value::map([("packages", Value::map([("distributed", distributed.into()), ("numpy", numpy)]))])
    }

    #[test]
    fn the_same_packages_are_not_worth_a_word() {
        let here = versions("2026.8.0", Value::Nil);
        assert_eq!(mismatches("Client", &here, [here.clone()].iter()), "");
        assert_eq!(mismatches("Client", &here, [].iter()), "");
        assert_eq!(mismatches("Client", &Value::Nil, [here].iter()), "");
    }

    #[test]
    fn packages_that_differ_are_in_a_table() {
        let workers = [versions("2026.8.0", Value::Nil), versions("2025.11.0", "2.4.6".into())];
        let text = mismatches("Client", &versions("2026.8.0", "2.4.6".into()), workers.iter());
        let expected = "Mismatched versions found\n\n\
            +-------------+----------+---------------------+\n\
            | Package     | Client   | Workers             |\n\
            +-------------+----------+---------------------+\n\
            | distributed | 2026.8.0 | 2025.11.0, 2026.8.0 |\n\
            | numpy       | 2.4.6    | 2.4.6, None         |\n\
            +-------------+----------+---------------------+";
        assert_eq!(text, expected);
    }
}
