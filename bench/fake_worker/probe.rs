//! Asks a scheduler again and again, on a connection of its own, and notes how long each answer takes.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::time::sleep;

use crate::comm::Comm;
use crate::now;
use crate::worker::heartbeat;

const PAUSE: Duration = Duration::from_millis(2);

/// When each question was asked, in seconds since 1970, and how many milliseconds the answer took.
pub(crate) type Answered = Rc<RefCell<Vec<(f64, f64)>>>;

/// Runs until the scheduler ends. `worker` is the address of one that is registered.
pub(crate) async fn run(scheduler: String, worker: String, answered: Answered) -> anyhow::Result<()> {
    let mut comm = Comm::connect(&scheduler, None).await?;
    loop {
        let (at, began) = (now(), Instant::now());
        comm.send(heartbeat(&worker).finish()).await?;
        comm.receive().await?.context("closed")?;
        answered.borrow_mut().push((at, began.elapsed().as_secs_f64() * 1e3));
        sleep(PAUSE).await;
    }
}
