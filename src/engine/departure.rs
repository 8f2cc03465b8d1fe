//! What is let go of in large numbers is let go of part by part.
//!
//! A Client that leaves may have wanted a million keys, and each may take a task and its result with it. As with large
//! graphs, some are looked at at a time, and what happens meanwhile is handled in between. It is as if all had been let go of
//! at once: what the same Client says next waits for the rest.

use std::vec;

use crate::dask::TaskKey;
use crate::engine::owner::Owner;
use crate::engine::{ClientId, Engine};

/// What a Client lets go of.
#[derive(Debug)]
pub(super) struct Departure {
    client: ClientId,
    what: Departing,
}

#[derive(Debug)]
pub(super) enum Departing {
    Keys(vec::IntoIter<TaskKey>),
    /// All that the Client wants; it has left.
    All,
}

impl Engine {
    /// Lets go of what a Client has no use for, or of the first part of it.
    pub(super) fn depart(&mut self, client: ClientId, what: Departing) {
        let mut departure = Departure { client, what };
        if self.let_go_of_part(&mut departure, self.config.intake_tasks_max) {
            self.departures.push_back(departure);
        }
    }

    /// Lets go of one part of what was to go first.
    pub(super) fn continue_departures(&mut self) {
        if let Some(mut departure) = self.departures.pop_front()
            && self.let_go_of_part(&mut departure, self.config.intake_tasks_max)
        {
            self.departures.push_front(departure);
        }
    }

    /// Lets go of all that a Client has no use for, before the next thing that it says.
    pub(super) fn complete_departures_of(&mut self, client: ClientId) {
        for mut departure in std::mem::take(&mut self.departures) {
            if departure.client == client {
                while self.let_go_of_part(&mut departure, usize::MAX) {}
            } else {
                self.departures.push_back(departure);
            }
        }
    }

    /// Whether something is left to do.
    fn let_go_of_part(&mut self, departure: &mut Departure, count: usize) -> bool {
        let client = departure.client;
        match &mut departure.what {
            Departing::Keys(keys) => {
                for key in keys.by_ref().take(count) {
                    match self.tasks.id(&key) {
                        Some(id) => self.unwant(id, Owner::Client(client)),
                        None => self.ignore(),
                    }
                }
                keys.len() > 0
            }
            Departing::All => {
                for _ in 0..count {
                    let Some(id) = self.clients.get_mut(&client).and_then(|wants| wants.pop_first()) else {
                        self.clients.remove(&client);
                        return false;
                    };
                    self.unwant(id, Owner::Client(client));
                }
                true
            }
        }
    }
}
