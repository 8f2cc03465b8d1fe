//! Every place of one story at which something may go wrong, one after the other.

use std::time::Duration;

use serde_json::json;
use tokio::time::{sleep, timeout};

use super::api_server::ApiServer;
use super::operator::Operator;
use super::seeds::{check_settled, runtime};
use super::trouble::Trouble;
use crate::random::Random;

/// What users do: one thing after the other, each after what came before has come to rest.
const STORY: [fn(&ApiServer); 6] = [
    |api| api.state().create("daily"),
    |api| api.state().edit("daily", |spec| spec["priority"] = json!(5)),
    |api| api.state().edit("daily", |spec| spec["source"]["python"] = json!("daily = 2")),
    |api| api.state().delete("daily"),
    |api| api.state().create("daily"),
    |api| api.state().create("weekly"),
];
const BETWEEN: Duration = Duration::from_secs(8);
/// Nothing fails but what is asked for, so no pause grows.
const SETTLES_WITHIN: Duration = Duration::from_secs(40);
const SILENCE: Duration = Duration::from_secs(60);

/// Tells the story to an operator that is killed at one write, before it is done or after.
async fn tell(crash_at: Option<(usize, bool)>, hidden: Option<usize>, behind: usize) -> (usize, usize) {
    fastrand::seed(1);
    let api = ApiServer::new(Random::new(1), Trouble::none());
    let crash = {
        let mut state = api.state();
        state.crash_at = crash_at;
        std::sync::Arc::clone(&state.crash)
    };
    let mut operator = Some(Operator::start(&api));
    for (number, act) in STORY.into_iter().enumerate() {
        // Whoever watches sees nothing of what happens until the next thing has happened as well.
        if hidden == Some(number) {
            api.state().hide();
        }
        act(&api);
        if hidden != Some(number) && timeout(BETWEEN, crash.notified()).await.is_ok() {
            drop(operator.take());
            api.state().behind = Some(behind).filter(|behind| *behind > 0);
            sleep(Duration::from_secs(1)).await;
            operator = Some(Operator::start(&api));
            sleep(BETWEEN).await;
        }
        if hidden.is_some_and(|hidden| hidden < number) {
            api.state().catch_up();
        }
    }
    api.state().catch_up();
    let mut operator = operator.expect("it was started again");
    let writes = api.state().writes.len();
    let versions = api.state().versions();
    check_settled(&api, &mut operator, SETTLES_WITHIN, SILENCE).await;
    (writes, versions)
}

#[test]
fn the_operator_may_be_killed_at_any_write() {
    let (writes, _) = runtime().block_on(tell(None, None, 0));
    assert!(writes > 15, "{writes} writes");
    for write in 1..=writes {
        for after in [false, true] {
            runtime().block_on(tell(Some((write, after)), None, 0));
        }
    }
}

#[test]
fn what_the_operator_sees_first_may_be_old() {
    let (writes, versions) = runtime().block_on(tell(None, None, 0));
    for behind in 1..=versions {
        // Killed in the middle and at the end.
        for write in [writes / 2, writes] {
            runtime().block_on(tell(Some((write, true)), None, behind));
        }
    }
}

#[test]
fn any_state_may_pass_unseen() {
    for hidden in 0..STORY.len() {
        runtime().block_on(tell(None, Some(hidden), 0));
    }
}
