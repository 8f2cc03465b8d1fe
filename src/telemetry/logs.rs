//! Logs.

use std::io::IsTerminal as _;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// Logs of a service: to standard output. `level` is a level or a filter such as `info,mainstay::server=debug`.
pub fn log_to_stdout(format: LogFormat, level: &str) {
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter(level)).with_target(false);
    match format {
        LogFormat::Text => subscriber.with_ansi(false).init(),
        LogFormat::Json => subscriber.json().flatten_event(true).init(),
    }
}

/// Logs of a command: to standard error, so that results stay apart. `MAINSTAY_LOG` sets another level.
pub fn log_to_terminal(level: &str) {
    let level = std::env::var("MAINSTAY_LOG").unwrap_or_else(|_| level.to_owned());
    tracing_subscriber::fmt()
        .with_env_filter(filter(&level))
        .with_target(false)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .init();
}

fn filter(level: &str) -> EnvFilter {
    EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"))
}
