//! Shows how far collections are: bars on a terminal, lines elsewhere.

use std::collections::BTreeMap;
use std::io::{IsTerminal as _, stderr};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::engine::{Requirements, Summary};
use crate::local::waiting;
use crate::server::{Report, Stage, describe_cycle};

const TEMPLATE: &str = "{prefix:.bold} {bar:30.cyan/dim} {pos:>6}/{len:6} {msg}";

/// The display of all collections.
pub(crate) struct Progress {
    bars: Option<(MultiProgress, BTreeMap<String, ProgressBar>)>,
    /// The last line shown for each, where there are no bars.
    lines: BTreeMap<String, String>,
    width: usize,
}

impl Progress {
    pub(crate) fn new(names: &[&str]) -> Self {
        let bars = stderr().is_terminal().then(|| (MultiProgress::new(), BTreeMap::new()));
        Self { bars, lines: BTreeMap::new(), width: names.iter().map(|name| name.len()).max().unwrap_or_default() }
    }

    /// Shows what is known of a collection now.
    pub(crate) fn show(&mut self, name: &str, report: &Report, requirements: &Requirements) {
        let text = text(report, requirements);
        let tasks = report.summary.as_ref().map(|summary| summary.tasks).unwrap_or_default();
        let Some((all, bars)) = &mut self.bars else {
            let line = format!("{name}: {}/{} {text}", tasks.done, tasks.total);
            if self.lines.get(name) != Some(&line) {
                crate::local::say(&line);
                self.lines.insert(name.to_owned(), line);
            }
            return;
        };
        let width = self.width;
        let bar = bars.entry(name.to_owned()).or_insert_with(|| {
            let style = ProgressStyle::with_template(TEMPLATE).unwrap_or_else(|_| ProgressStyle::default_bar());
            let bar = all.add(ProgressBar::new(0).with_style(style.progress_chars("━╸─")));
            bar.set_prefix(format!("{name:width$}"));
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        bar.set_length(tasks.total.max(1));
        bar.set_position(tasks.done);
        bar.set_message(text);
    }

    /// Leaves the bars as they are and takes no more.
    pub(crate) fn finish(&mut self) {
        if let Some((_, bars)) = &self.bars {
            for bar in bars.values() {
                bar.abandon();
            }
        }
    }

    /// Prints a line above the bars.
    pub(crate) fn say(&self, line: &str) {
        match &self.bars {
            // A terminal that is gone is no reason to stop.
            Some((all, _)) => drop(all.println(line)),
            None => crate::local::say(line),
        }
    }
}

/// What is going on, in a few words.
fn text(report: &Report, requirements: &Requirements) -> String {
    match (&report.stage, &report.summary) {
        (Stage::WaitingForWorker { workers_running }, _) => {
            waiting::for_builder(requirements, *workers_running, report.refusal.as_ref())
        }
        (Stage::WaitingForTurn, _) => "waits until others are built".to_owned(),
        (Stage::WaitingForInput(missing), _) => format!("waits for the input {missing}"),
        (Stage::InputCycle { cycle }, _) => format!("cannot be built: {}", describe_cycle(cycle)),
        (Stage::Building { worker }, _) => format!("builds the graph on {worker}"),
        (Stage::BuildFailed(error), _) => format!("cannot be built: {}", error.kind),
        (Stage::Accepted, None) => "starts".to_owned(),
        (Stage::Accepted, Some(summary)) => match &summary.unrunnable {
            Some(unrunnable) => format!("{}: {}", counts(summary), waiting::for_worker(unrunnable)),
            None => counts(summary),
        },
    }
}

fn counts(summary: &Summary) -> String {
    let tasks = &summary.tasks;
    let parts = [
        (tasks.processing, "processing"),
        (tasks.queued, "queued"),
        (tasks.waiting, "waiting"),
        (tasks.no_worker, "without a worker"),
        (tasks.erred, "erred"),
    ];
    let mut shown: Vec<String> =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    if shown.is_empty() {
        shown.push(format!("persisted, {}", size(summary.nbytes)));
    }
    if summary.retries.used > 0 {
        shown.push(format!("{} retried", summary.retries.used));
    }
    shown.join(", ")
}

/// Bytes to read: `1.2 GiB`.
pub(crate) fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}
