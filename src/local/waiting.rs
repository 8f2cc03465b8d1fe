//! Says for what a collection waits, so that a person knows what would help.

use crate::engine::{Requirements, Unrunnable, WorkerSelector};
use crate::server::Refusal;

/// Why no worker makes the graph.
pub(crate) fn for_builder(requirements: &Requirements, workers_running: usize, refusal: Option<&Refusal>) -> String {
    match (&requirements.workers, refusal) {
        (Some(selector), _) if workers_running > 0 => format!("waits for a worker: {}", no_match(selector, workers_running)),
        (_, Some(Refusal { worker, reason })) => format!("waits for a worker: {worker} came and was refused: {reason}"),
        (_, None) => "waits for a worker: none runs".to_owned(),
    }
}

/// Why no worker takes some of the tasks.
pub(crate) fn for_worker(unrunnable: &Unrunnable) -> String {
    let Unrunnable { workers, workers_selected, workers_running, .. } = unrunnable;
    match workers {
        _ if *workers_running == 0 => "no worker runs".to_owned(),
        Some(selector) if *workers_selected == 0 => no_match(selector, *workers_running),
        selector => lacks_resources(unrunnable, selector.as_ref()),
    }
}

fn no_match(selector: &WorkerSelector, running: usize) -> String {
    let running = if running == 1 { "1 worker runs".to_owned() } else { format!("{running} workers run") };
    format!("the selector {selector} matches none; {running} (see --labels for the labels of workers here)")
}

fn lacks_resources(unrunnable: &Unrunnable, selector: Option<&WorkerSelector>) -> String {
    let among = selector.map(|selector| format!(" that matches {selector}")).unwrap_or_default();
    let Some((resource, worker, has)) = &unrunnable.nearest else {
        return format!("no worker{among} has the resources {}", unrunnable.resources);
    };
    let nearest = if worker.is_empty() || has.is_zero() {
        "no worker declares any".to_owned()
    } else {
        format!("nearest is {worker} with {resource}: {has}")
    };
    let needs = unrunnable.resources.get(resource);
    format!("no worker{among} has {resource}: {needs}; {nearest} (see --resources)")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dask::TaskKey;
    use crate::engine::{Amount, Resources};

    fn tape() -> WorkerSelector {
        WorkerSelector { match_labels: [("disk".to_owned(), "tape".to_owned())].into(), ..WorkerSelector::default() }
    }

    fn unrunnable(gpus: f64, nearest: (&str, f64)) -> Unrunnable {
        Unrunnable {
            tasks: 3,
            example: TaskKey::from_text("a"),
            workers: None,
            resources: Resources([("GPU".to_owned(), Amount::from_f64(gpus).unwrap())].into()),
            workers_selected: 1,
            nearest: Some(("GPU".to_owned(), nearest.0.to_owned(), Amount::from_f64(nearest.1).unwrap())),
            workers_running: 1,
        }
    }

    #[test]
    fn a_selector_that_matches_nobody_is_named() {
        let requirements = Requirements { workers: Some(tape()), ..Requirements::default() };
        let expected = "the selector disk=tape matches none; 1 worker runs (see --labels for the labels of workers here)";
        assert_eq!(for_builder(&requirements, 1, None), format!("waits for a worker: {expected}"));
        let stuck = Unrunnable { workers: Some(tape()), workers_selected: 0, ..unrunnable(0.0, ("", 0.0)) };
        assert_eq!(for_worker(&stuck), expected);
        assert_eq!(for_builder(&requirements, 0, None), "waits for a worker: none runs");
    }

    #[test]
    fn a_resource_that_is_short_is_named_with_who_has_most() {
        assert_eq!(
            for_worker(&unrunnable(4.0, ("worker-0", 2.0))),
            "no worker has GPU: 4; nearest is worker-0 with GPU: 2 (see --resources)"
        );
        assert_eq!(for_worker(&unrunnable(4.0, ("", 0.0))), "no worker has GPU: 4; no worker declares any (see --resources)");
    }
}
