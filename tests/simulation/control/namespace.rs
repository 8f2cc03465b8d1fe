//! A model of the namespace's server, as far as the controller knows it: it takes requests and tells how far it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mainstay::engine::{OutputSummary, Summary, TaskCounts};
use mainstay::server::{Asked, CollectionRequest, OutputInfo, Report, Stage, StandIn};
use tokio::sync::mpsc;
use tokio::time::sleep;

use super::api_server::ApiServer;

/// How often it goes on with what it has.
const TURN: Duration = Duration::from_millis(100);
const TASKS: u64 = 4;

/// What is kept of a collection.
#[derive(Debug)]
struct Kept {
    request: Arc<CollectionRequest>,
    /// Turns until the graph is there, then until each task is done.
    turns_left: u64,
    done: Option<u64>,
}

/// Serves until it is aborted.
pub(crate) async fn serve(api: ApiServer, mut stand_in: StandIn, changed: mpsc::UnboundedSender<String>) {
    let taken_before = api.state().kept();
    let mut kept: BTreeMap<String, Kept> = BTreeMap::new();
    let mut leaving: BTreeMap<String, u64> = BTreeMap::new();
    loop {
        let rests = leaving.is_empty() && kept.values().all(|kept| kept.done == Some(TASKS));
        sleep(if rests { 10 * TURN } else { TURN }).await;
        let mut news = Vec::new();
        for asked in stand_in.asked() {
            match asked {
                Asked::Apply(request) => {
                    let uid = request.uid.clone();
                    leaving.remove(&uid);
                    let same = kept.get_mut(&uid).filter(|kept| kept.request.revision == request.revision);
                    match same {
                        Some(kept) => kept.request = request,
                        None => {
                            let turns_left = api.state().random.below(10);
                            kept.insert(uid.clone(), Kept { request, turns_left, done: None });
                        }
                    }
                    news.push(uid);
                }
                Asked::Remove { uid } if kept.contains_key(&uid) => {
                    kept.remove(&uid);
                    let turns = api.state().random.below(20);
                    leaving.insert(uid, turns);
                }
                Asked::AllApplied => api.state().check_all_known(&taken_before, |uid| kept.contains_key(uid)),
                Asked::Remove { .. } | Asked::WorkersChanged => {}
            }
        }
        leaving.keys().for_each(|uid| check_removal(&api, uid));
        for (uid, kept) in &mut kept {
            if go_on(&api, kept) {
                news.push(uid.clone());
            }
        }
        leaving.retain(|uid, turns| {
            if *turns == 0 {
                stand_in.withdraw(uid);
                news.push(uid.clone());
            }
            *turns = turns.saturating_sub(1);
            *turns > 0 || !news.contains(uid)
        });
        for uid in news {
            if let Some(kept) = kept.get(&uid) {
                stand_in.publish(&uid, report(kept));
            }
            // The operator is ending when nobody listens.
            let _ = changed.send(uid);
        }
    }
}

/// Whether there is something to tell.
fn go_on(api: &ApiServer, kept: &mut Kept) -> bool {
    match (kept.turns_left, kept.done) {
        (0, None) => kept.done = Some(0),
        (0, Some(done)) if done < TASKS => kept.done = Some(done + 1),
        (0, Some(_)) => {
            // Now and then a result is lost, and made again.
            let is_lost = api.state().loses_a_result();
            if is_lost {
                kept.done = Some(TASKS - 1);
            }
            return is_lost;
        }
        _ => {
            kept.turns_left -= 1;
            return false;
        }
    }
    kept.turns_left = api.state().random.below(8);
    true
}

/// What is let go of is of no use to anybody: nothing is freed because the operator does not know better.
fn check_removal(api: &ApiServer, uid: &str) {
    let state = api.state();
    state.tell(&format!("the server lets go of {uid}"));
    assert!(!state.is_kept(uid), "{uid} is freed, and somebody wants it");
}

fn report(kept: &Kept) -> Report {
    let CollectionRequest { generation, revision, .. } = &*kept.request;
    let stage = if kept.done.is_some() { Stage::Accepted } else { Stage::Building { worker: "w-0".to_owned() } };
    let summary = kept.done.map(|done| {
        let tasks = TaskCounts { total: TASKS, done, memory: done, processing: TASKS - done, ..TaskCounts::default() };
        let output = OutputSummary { name: "daily".to_owned(), keys: TASKS, in_memory: done, erred: 0, nbytes: 1024 * done };
        Box::new(Summary {
            tasks,
            nbytes: output.nbytes,
            outputs: vec![output],
            workers_running: 1,
            workers_matching: 1,
            ..Summary::default()
        })
    });
    Report {
        generation: *generation,
        revision: revision.clone(),
        stage,
        summary,
        outputs: vec![OutputInfo { name: "daily".to_owned(), type_name: "DataFrame".to_owned(), keys: TASKS }],
        refusal: None,
        lost_workers: Vec::new(),
        missing_input: None,
        is_remade: false,
    }
}
