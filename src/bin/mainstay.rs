//! The `mainstay` command: parses what was typed, and turns errors into exit codes.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mainstay::local::{self, LocalArgs, Outcome};

// A graph is millions of small pieces that come and go together: the system's allocator would keep most of their pages.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Keeps Dask collections in cluster memory, as Kubernetes resources say.
#[derive(Parser)]
#[command(name = "mainstay", bin_name = "mainstay", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the operator in a cluster
    Operator(mainstay::operator::OperatorArgs),
    /// Run collections on this machine, without Kubernetes
    Local(LocalArgs),
    /// Print the CRDs
    Crds,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "the last word of a command goes to a person")]
fn report(error: &anyhow::Error) {
    eprintln!("error: {}", mainstay::error::chain(&**error));
}

#[expect(clippy::print_stdout, reason = "the CRDs are the command's result")]
fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Operator(args) => {
            runtime()?.block_on(mainstay::operator::run(args))?;
        }
        Command::Local(args) => {
            mainstay::telemetry::log_to_terminal("warn");
            if runtime()?.block_on(local::run(args))? == Outcome::Failed {
                return Ok(ExitCode::FAILURE);
            }
        }
        Command::Crds => print!("{}", mainstay::api::crds()),
    }
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}
