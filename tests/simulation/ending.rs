//! When faults stop, all comes to rest.

use std::collections::BTreeSet;

use mainstay::dask::{TaskKey, WorkerAddress};

use crate::happening::{Happening, Slot};
use crate::worker::Process;
use crate::world::World;

/// What is settled must be so this long after the last fault.
const SETTLES_WITHIN: u64 = 900_000;

impl World {
    pub(crate) fn on_calm(&mut self) {
        self.is_calm = true;
        self.calm_since = self.now;
        if self.server.is_none() {
            self.after(1, Happening::ServerStarts);
        }
        // From here on one worker can run everything.
        self.slots.push(Slot { nthreads: 2, gpus: 4, process: None });
        let slot = self.slots.len() - 1;
        self.after(1, Happening::WorkerStarts { slot });
        let paused = |(address, process): (&WorkerAddress, &Process)| (process.status == "paused").then(|| address.clone());
        for worker in self.processes.iter().filter_map(paused).collect::<Vec<_>>() {
            self.set_status(&worker, "running");
        }
        self.after(1_000, Happening::Look);
    }

    pub(crate) fn on_look(&mut self) {
        assert!(self.now < self.calm_since + SETTLES_WITHIN, "does not settle: {}", self.why_not_quiet().unwrap_or_default());
        self.quiet_looks = if self.why_not_quiet().is_none() { self.quiet_looks + 1 } else { 0 };
        self.after(1_000, Happening::Look);
    }

    pub(crate) fn why_not_quiet(&self) -> Option<String> {
        let Some(server) = &self.server else { return Some("there is no server".to_owned()) };
        if let Some(busy) = self.processes.values().find(|process| !process.is_idle()) {
            return Some(format!("{} is at work: {busy:#?}", busy.profile.name));
        }
        let is_to_come = |happening: &Happening| {
            matches!(
                happening,
                Happening::Ends { .. }
                    | Happening::WorkerStarts { .. }
                    | Happening::Closes { .. }
                    | Happening::Lowered { .. }
                    | Happening::Built { .. }
            )
        };
        if let Some(happening) = self.happenings.values().find(|happening| is_to_come(happening)) {
            return Some(format!("{happening:?} is to come"));
        }
        if self.gathers > 0 || self.links.values().any(|link| !link.is_idle()) || !self.inbox.is_empty() {
            return Some("something is under way".to_owned());
        }
        let settled = BTreeSet::from(["memory", "erred", "released"]);
        let state = |key: &TaskKey| server.engine.task_state(key).filter(|state| !settled.contains(state));
        if let Some((key, state)) = server.engine.keys().find_map(|key| Some((key, state(key)?))) {
            return Some(format!("{key} is {state}: {:#?}", server.engine.story(key)));
        }
        self.collections.why_not_quiet(server)
    }
}
