//! Plays `scenarios/*.txt`: each line a stimulus, below it, after `=>`, all that comes of it.
//!
//! `UPDATE_EXPECT=1` writes what comes now; read the difference like code.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use crate::language::Play;

const RESULT: &str = "=> ";

#[test]
fn every_scenario_ends_as_it_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engine/scenarios");
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).expect("a folder of scenarios").map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    assert!(!files.is_empty());
    let update = std::env::var_os("UPDATE_EXPECT").is_some();
    let mut different = Vec::new();
    for file in files {
        let expected = fs::read_to_string(&file).expect("a scenario in UTF-8");
        let played = play(&file, &expected);
        if played != expected && update {
            fs::write(&file, &played).expect("scenarios are writable");
        } else if played != expected {
            different.push(format!("{}:\n{}", file.display(), difference(&expected, &played)));
        }
    }
    assert!(different.is_empty(), "UPDATE_EXPECT=1 accepts these:\n{}", different.join("\n"));
}

#[expect(clippy::print_stderr, reason = "where it stops, when it does")]
fn play(file: &Path, text: &str) -> String {
    let mut play = Play::new();
    let mut played = String::new();
    for line in text.lines().filter(|line| !line.starts_with(RESULT.trim_end())) {
        let _ = writeln!(played, "{line}");
        let words = line.split('#').next().unwrap_or_default().trim();
        if words.is_empty() {
            continue;
        }
        eprintln!("{}: {words}", file.file_name().unwrap_or_default().display());
        for result in play.perform(words) {
            let _ = writeln!(played, "{RESULT}{result}");
        }
    }
    played
}

/// The first lines that differ, with what leads up to them.
fn difference(expected: &str, played: &str) -> String {
    let (expected, played): (Vec<&str>, Vec<&str>) = (expected.lines().collect(), played.lines().collect());
    let first = expected.iter().zip(&played).take_while(|(left, right)| left == right).count();
    let before = played[first.saturating_sub(4)..first].join("\n  ");
    let lines =
        |lines: &[&str], sign: &str| lines.iter().skip(first).take(6).map(|line| format!("{sign} {line}\n")).collect::<String>();
    format!("  {before}\n{}{}", lines(&expected, "-"), lines(&played, "+"))
}
