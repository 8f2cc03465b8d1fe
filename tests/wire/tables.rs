//! Every op of the codec's tables was seen in real traffic, and all that was seen is in a table.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use mainstay::wire::Release;
use mainstay::wire::messages::rpc;
use mainstay::wire::messages::{FromClient, FromWorker, ToClient, ToWorker};

use crate::support::captures;

/// Ops without a capture, and why.
const NOT_CAPTURED: &[(&str, &str, &str)] = &[
    ("from_client", "log-event", "only workers send it, but a stock scheduler takes it from Clients too"),
    ("to_worker", "cancel-compute", "workers take it, but a stock scheduler does not send it"),
    ("to_client", "error", "Clients take it, but a stock scheduler does not send it"),
    ("to_client", "stream-closed", "sent when a Client is gone already"),
    ("rpc_scheduler", "benchmark_hardware", "takes half a minute"),
    ("rpc_scheduler", "dump_cluster_state_to_url", "refused: it would write files"),
    ("rpc_scheduler", "get_logs", "an old name of `logs`"),
    ("rpc_scheduler", "get_task_prefix_states", "only dashboards ask"),
    ("rpc_scheduler", "set_restrictions", "no Client asks"),
    ("rpc_scheduler", "shuffle_get", "only when data arrives before the first task does"),
    ("rpc_scheduler", "subscribe_worker_status", "only cluster objects ask"),
    ("rpc_scheduler", "terminate", "ends what records"),
    ("rpc_scheduler", "unregister_scheduler_plugin", "refused, as its counterpart"),
];

fn tables() -> Vec<(&'static str, &'static [&'static str])> {
    vec![
        ("from_worker", &FromWorker::OPS),
        ("from_client", &FromClient::OPS),
        ("to_worker", &ToWorker::OPS),
        ("to_client", &ToClient::OPS),
        ("rpc_scheduler", rpc::OPS),
    ]
}

#[test]
fn every_op_has_a_capture() {
    let captured: BTreeSet<(String, String)> =
        captures().into_iter().map(|capture| (capture.folder.clone(), capture.op().to_owned())).collect();
    let mut missing = Vec::new();
    for (folder, ops) in tables() {
        for op in ops {
            let is_captured = captured.contains(&(folder.to_owned(), (*op).to_owned()));
            let is_exception = NOT_CAPTURED.iter().any(|(found, name, _)| *found == folder && name == op);
            if is_captured == is_exception {
                missing.push(format!("{folder}/{op}: captured {is_captured}, listed as not captured {is_exception}"));
            }
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn every_capture_is_of_a_known_op() {
    let tables = tables();
    for capture in captures() {
        let Some((_, ops)) = tables.iter().find(|(folder, _)| *folder == capture.folder) else { continue };
        assert!(ops.contains(&capture.op()), "{} is in no table", capture.path.display());
    }
}

#[test]
fn every_release_has_an_environment_for_its_tests() {
    let dev = Path::new(env!("CARGO_MANIFEST_DIR")).join("dev");
    let files = fs::read_dir(dev.join("releases")).unwrap();
    let files: BTreeSet<String> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    let mut releases: Vec<&str> = Release::all().map(Release::version).collect();
    // The newest is that of the worker image, and of the tests' own environment.
    let newest = releases.pop().unwrap();
    assert_eq!(files, releases.iter().map(|release| format!("{release}.txt")).collect());
    let image = fs::read_to_string(dev.join("images/worker-requirements.txt")).unwrap();
    assert!(image.contains(&format!("\ndistributed=={newest}\n")));
}
