//! The page of a report.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::Report;
use crate::dask::TaskKey;
use crate::wire::value::Value;

/// Bars drawn; of more, the longest.
const BARS_MAX: usize = 20_000;
/// Rows drawn, one a thread of a worker.
const ROWS_MAX: usize = 500;
const ROW_HEIGHT: usize = 14;
const WIDTH: f64 = 1000.0;
/// Of the profile, frames that took less than this share of the time are left out, and those deeper than this.
const SHARE_MIN: f64 = 0.01;
const DEPTH_MAX: usize = 60;

const STYLE: &str = "body{font-family:sans-serif;margin:2em;max-width:1100px}table{border-collapse:collapse}\
th,td{padding:.2em .8em;text-align:right;border-bottom:1px solid #ddd}th:first-child,td:first-child{text-align:left}\
pre{background:#f4f4f4;padding:1em;overflow:auto}details{margin-left:1em}svg{background:#fafafa;width:100%}";

/// One run of a task.
struct Run {
    key: String,
    prefix: String,
    /// The worker and the thread.
    place: (String, String),
    nbytes: u64,
    is_error: bool,
    spans: Vec<Span>,
}

/// Something that a worker did about a run, in seconds since 1970.
struct Span {
    action: String,
    start: f64,
    stop: f64,
}

/// All runs of one prefix.
#[derive(Default)]
struct Sum {
    runs: u64,
    failed: u64,
    seconds: f64,
    longest: f64,
    nbytes: u64,
}

pub(super) fn render(report: &Report, profile: &Value) -> String {
    let runs: Vec<Run> = report.records.iter().filter_map(|record| read(record)).collect();
    let mut page = String::from("<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"><title>Dask Performance Report</title>");
    let sections = [
        format!("<style>{STYLE}</style></head><body>\n<h1>Dask Performance Report</h1>\n"),
        format!("<h2>Duration: {}</h2>\n", duration(report.seconds)),
        tasks(&runs),
        scheduler(report),
        format!("<h2>Calling Code</h2>\n<pre>\n{}\n</pre>\n", escape(&report.code)),
        format!("<h2>Tasks by name</h2>\n{}", table(&runs)),
        format!("<h2>Task Stream</h2>\n{}", stream(report, &runs)),
        format!("<h2>Worker Profile (compute)</h2>\n{}", profile_tree(profile)),
    ];
    page.extend(sections);
    page += "</body></html>\n";
    page
}

fn read(record: &[u8]) -> Option<Run> {
    let record = Value::from_msgpack(&bytes::Bytes::copy_from_slice(record)).ok()?;
    let key: TaskKey = record.get("key")?.as_key()?;
    let text = |name: &str| record.get(name).and_then(Value::as_text).unwrap_or_default().to_owned();
    let thread = record.get("thread").and_then(Value::as_integer).unwrap_or_default().to_string();
    let spans = record.get("startstops")?.as_elements()?.iter().filter_map(|span| {
        Some(Span {
            action: span.get("action")?.as_text()?.to_owned(),
            start: span.get("start")?.as_number()?,
            stop: span.get("stop")?.as_number()?,
        })
    });
    Some(Run {
        prefix: key.prefix().into_owned(),
        key: key.to_string(),
        place: (text("worker"), thread),
        nbytes: record.get("nbytes").and_then(Value::as_integer).unwrap_or_default().max(0) as u64,
        is_error: text("status") != "OK",
        spans: spans.collect(),
    })
}

fn tasks(runs: &[Run]) -> String {
    let mut by_action = BTreeMap::<&str, f64>::new();
    for span in runs.iter().flat_map(|run| &run.spans) {
        *by_action.entry(&span.action).or_default() += span.stop - span.start;
    }
    let actions: String =
        by_action.iter().map(|(action, seconds)| format!("<li>{} time: {}</li>\n", escape(action), duration(*seconds))).collect();
    format!("<h2>Tasks Information</h2>\n<ul>\n<li>number of tasks: {}</li>\n{actions}</ul>\n", runs.len())
}

fn scheduler(report: &Report) -> String {
    let version = |name: &str| escape(report.packages.get(name).and_then(Value::as_text).unwrap_or("not known"));
    format!(
        "<h2>Scheduler Information</h2>\n<ul>\n<li>Address: {}</li>\n<li>Workers: {}</li>\n<li>Threads: {}</li>\n<li>Memory: {}</li>\n\
         <li>Dask Version: {}</li>\n<li>Dask.Distributed Version: {}</li>\n<li>Mainstay Version: {}</li>\n</ul>\n",
        escape(&report.address),
        report.workers,
        report.threads,
        bytes_to_read(report.memory),
        version("dask"),
        version("distributed"),
        env!("CARGO_PKG_VERSION"),
    )
}

fn table(runs: &[Run]) -> String {
    let mut sums = BTreeMap::<&str, Sum>::new();
    for run in runs {
        let sum = sums.entry(&run.prefix).or_default();
        let seconds: f64 = run.spans.iter().filter(|span| span.action == "compute").map(|span| span.stop - span.start).sum();
        sum.runs += 1;
        sum.failed += u64::from(run.is_error);
        sum.seconds += seconds;
        sum.longest = sum.longest.max(seconds);
        sum.nbytes += run.nbytes;
    }
    let mut rows: Vec<(&str, Sum)> = sums.into_iter().collect();
    rows.sort_by(|(_, one), (_, other)| other.seconds.total_cmp(&one.seconds));
    let mut table = String::from(
        "<table>\n<tr><th>name</th><th>runs</th><th>failed</th><th>compute time</th><th>mean</th><th>longest</th><th>results</th></tr>\n",
    );
    for (name, sum) in rows {
        let mean = duration(sum.seconds / sum.runs as f64);
        let cells = [duration(sum.seconds), mean, duration(sum.longest), bytes_to_read(sum.nbytes)].join("</td><td>");
        // Writing to a String cannot fail, here as below.
        let _ = writeln!(table, "<tr><td>{}</td><td>{}</td><td>{}</td><td>{cells}</td></tr>", escape(name), sum.runs, sum.failed);
    }
    table + "</table>\n"
}

/// Bars by time, a row for each thread of a worker.
fn stream(report: &Report, runs: &[Run]) -> String {
    let mut rows = BTreeMap::<&(String, String), usize>::new();
    for run in runs {
        rows.entry(&run.place).or_default();
    }
    for (index, row) in rows.values_mut().enumerate() {
        *row = index;
    }
    let mut bars: Vec<(&Run, &Span)> = runs.iter().flat_map(|run| run.spans.iter().map(move |span| (run, span))).collect();
    bars.sort_by(|(_, one), (_, other)| (other.stop - other.start).total_cmp(&(one.stop - one.start)));
    bars.truncate(BARS_MAX);
    let height = rows.len().min(ROWS_MAX) * ROW_HEIGHT;
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {height}\" xmlns=\"http://www.w3.org/2000/svg\">\n");
    let scale = WIDTH / report.seconds.max(1e-6);
    for (run, span) in bars {
        let row = rows[&run.place];
        if row >= ROWS_MAX {
            continue;
        }
        let (x, width) = ((span.start - report.start) * scale, ((span.stop - span.start) * scale).max(0.2));
        let (y, bar) = (row * ROW_HEIGHT + 1, ROW_HEIGHT - 2);
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.2}\" y=\"{y}\" width=\"{width:.2}\" height=\"{bar}\" fill=\"{}\"><title>{} {} on {}: {}</title></rect>",
            colour(run, span),
            escape(&run.key),
            escape(&span.action),
            escape(&run.place.0),
            duration(span.stop - span.start),
        );
    }
    let _ = writeln!(
        svg,
        "</svg>\n<p>A row is a thread of a worker. Red is transfer, orange the disk, grey unpickling, black an error.</p>"
    );
    svg
}

/// Dask's colours of what is no computing; tasks have one by their name.
fn colour(run: &Run, span: &Span) -> String {
    match span.action.as_str() {
        "transfer" => "#d62728".to_owned(),
        "disk-read" | "disk-write" => "#ff9900".to_owned(),
        "deserialize" => "#999999".to_owned(),
        _ if run.is_error => "#000000".to_owned(),
        _ => {
            let hash = run.prefix.bytes().fold(7_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
            // Greens, blues and violets: reds mean something else.
            format!("hsl({},55%,{}%)", 90 + hash % 220, 45 + hash / 220 % 20)
        }
    }
}

/// Frames of Python by the share of time spent in them, to be opened one by one.
fn profile_tree(profile: &Value) -> String {
    let total = profile.get("count").and_then(Value::as_integer).unwrap_or_default();
    let mut tree = String::new();
    if total <= 0 {
        return "<p>No samples were taken.</p>\n".to_owned();
    }
    write_frames(&mut tree, profile, total as f64, 0);
    tree
}

fn write_frames(tree: &mut String, frame: &Value, total: f64, depth: usize) {
    let count = |frame: &Value| frame.get("count").and_then(Value::as_integer).unwrap_or_default();
    let mut children: Vec<&Value> =
        frame.get("children").and_then(Value::as_map).unwrap_or_default().iter().map(|(_, child)| child).collect();
    children.sort_by_key(|child| -count(child));
    for child in children.into_iter().take_while(|child| count(child) as f64 >= SHARE_MIN * total) {
        let described = |name: &str| child.get("description").and_then(|description| description.get(name));
        let text = |name: &str| escape(described(name).and_then(Value::as_text).unwrap_or_default());
        let line = described("line_number").and_then(Value::as_integer).unwrap_or_default();
        let _ = writeln!(
            tree,
            "<details{}><summary>{:.0} % {} <small>{}:{line}</small></summary>",
            if depth < 3 { " open" } else { "" },
            100.0 * count(child) as f64 / total,
            text("name"),
            text("filename"),
        );
        if depth < DEPTH_MAX {
            write_frames(tree, child, total, depth + 1);
        }
        *tree += "</details>\n";
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A time to read: `1.25 s`.
fn duration(seconds: f64) -> String {
    match seconds {
        hours if hours >= 7200.0 => format!("{}hr {}m", (hours / 3600.0) as u64, (hours / 60.0) as u64 % 60),
        minutes if minutes >= 600.0 => format!("{}m {}s", (minutes / 60.0) as u64, minutes as u64 % 60),
        seconds if seconds >= 1.0 => format!("{seconds:.2} s"),
        millis if millis >= 1e-3 => format!("{:.2} ms", millis * 1e3),
        micros => format!("{:.2} us", micros * 1e6),
    }
}

/// Bytes to read: `1.25 GiB`.
fn bytes_to_read(bytes: u64) -> String {
    let units = [(1_u64 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "kiB")];
    let unit = units.iter().find(|(size, _)| bytes >= *size);
    unit.map_or_else(|| format!("{bytes} B"), |(size, name)| format!("{:.2} {name}", bytes as f64 / *size as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(action: &str, start: f64, stop: f64) -> Value {
        Value::map([("action", action.into()), ("start", start.into()), ("stop", stop.into())])
    }

    fn record(key: &str, status: &str, spans: Vec<Value>) -> Box<[u8]> {
        let fields = [
            ("key", key.into()),
            ("worker", "tcp://10.0.0.1:1".into()),
            ("thread", 7_i64.into()),
            ("nbytes", 3000_i64.into()),
            ("status", status.into()),
            ("startstops", Value::Array(spans)),
        ];
        Value::map(fields).to_msgpack().into()
    }

    fn frame(name: &str, count: i64, children: Vec<Value>) -> Value {
        let children = children.into_iter().enumerate().map(|(index, child)| ((index as i64).into(), child));
        let description = Value::map([("name", name.into()), ("filename", "a.py".into()), ("line_number", 3_i64.into())]);
        Value::map([("count", count.into()), ("children", Value::Map(children.collect())), ("description", description)])
    }

    #[test]
    fn a_page_says_what_was_done_and_shows_no_text_as_markup() {
        let report = Report {
            start: 100.0,
            seconds: 10.0,
            code: "x = 1 < 2".to_owned(),
            address: "tcp://10.0.0.9:8786".to_owned(),
            workers: 1,
            threads: 4,
            memory: 5 << 30,
            packages: Value::map([("dask", "2026.8.0".into())]),
            records: vec![
                record("inc-1", "OK", vec![span("transfer", 101.0, 101.5), span("compute", 101.5, 104.5)]),
                record("<b>-2", "error", vec![span("compute", 105.0, 105.25)]),
            ],
        };
        let profile = frame("root", 200, vec![frame("work", 150, Vec::new()), frame("rare", 1, Vec::new())]);
        let page = render(&report, &profile);
        let expected = [
            "<h2>Duration: 10.00 s</h2>",
            "number of tasks: 2",
            "compute time: 3.25 s",
            "transfer time: 500.00 ms",
            "Threads: 4",
            "Memory: 5.00 GiB",
            "Dask Version: 2026.8.0",
            "x = 1 &lt; 2",
            "<tr><td>inc</td><td>1</td><td>0</td><td>3.00 s</td><td>3.00 s</td><td>3.00 s</td><td>2.93 kiB</td></tr>",
            "<rect x=\"150.00\" y=\"1\" width=\"300.00\"",
            "<summary>75 % work <small>a.py:3</small></summary>",
        ];
        for text in expected {
            assert!(page.contains(text), "{text} is not in {page}");
        }
        assert!(!page.contains("<b>") && !page.contains("rare"));
    }
}
