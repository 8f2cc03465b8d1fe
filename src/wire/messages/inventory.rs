//! What a worker with a keeper has when it registers again: its data, and the runs that it has started.
//!
//! Source: server/keeper.py: `Keeper.inventory`. What failed comes in messages of its own, with the fields of `task-erred`.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{head, named_keys};
use crate::dask::{HeldKey, TaskKey};
use crate::wire::document::{DocumentError, Fields};
use crate::wire::encode::Encoder;
use crate::wire::value::Value;

/// Keys in memory, and as many runs, of one message.
pub const INVENTORY_KEYS_MAX: usize = 10_000;

/// A part of what a worker has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Inventory {
    pub held: Vec<HeldKey>,
    pub runs: Vec<StartedRun>,
}

/// A run that was started and has not ended.
#[derive(Clone, Debug, PartialEq)]
pub struct StartedRun {
    pub key: TaskKey,
    pub run_id: u64,
    /// It has not given its thread back.
    pub has_thread: bool,
    /// It was not given up.
    pub is_wanted: bool,
    /// What it takes.
    pub resources: Vec<(String, f64)>,
}

impl Inventory {
    pub const OP: &'static str = "mainstay-inventory";

    pub(super) fn read(fields: &Fields<'_>) -> Result<Self, DocumentError> {
        let keys = fields.keys("keys")?;
        let (nbytes, types) = (fields.value("nbytes")?, fields.value("types")?);
        let type_pickles = fields.value("type_pickles")?;
        let actors: BTreeSet<TaskKey> = fields.keys("actors")?.into_iter().collect();
        let runs = fields.array_of_fields("runs")?;
        if keys.len().max(runs.len()) > INVENTORY_KEYS_MAX {
            return Err(fields.wrong_kind("keys", "at most 10,000 keys", "longer array"));
        }
        let numbers = |name, value: &Value| {
            let elements = value.as_elements().filter(|elements| elements.len() == keys.len());
            let wrong = || fields.wrong_kind(name, "a number from 0 on for each key", value.kind());
            let number = |element: &Value| element.as_integer().and_then(|number| u64::try_from(number).ok()).ok_or_else(wrong);
            elements.ok_or_else(wrong)?.iter().map(number).collect::<Result<Vec<u64>, _>>()
        };
        let (nbytes, types) = (numbers("nbytes", &nbytes)?, numbers("types", &types)?);
        // Copied once each, so that they do not keep the whole message.
        let copied =
            |pickle: &Value| if let Value::Binary(pickle) = pickle { Some(Bytes::copy_from_slice(pickle)) } else { None };
        let type_pickles: Vec<Option<Bytes>> = type_pickles.as_elements().unwrap_or_default().iter().map(copied).collect();
        let pickle = |place: u64| {
            let pickle = usize::try_from(place).ok().and_then(|place| type_pickles.get(place)?.clone());
            pickle.ok_or_else(|| fields.wrong_kind("types", "places in `type_pickles`", "different number"))
        };
        let held = keys.into_iter().zip(nbytes).zip(types).map(|((key, nbytes), place)| {
            let is_actor = actors.contains(&key);
            Ok(HeldKey { key, nbytes, type_pickle: pickle(place)?, is_actor })
        });
        Ok(Self {
            held: held.collect::<Result<_, DocumentError>>()?,
            runs: runs.iter().map(StartedRun::read).collect::<Result<_, _>>()?,
        })
    }

    /// As a keeper writes it, but for types that several keys share.
    pub(super) fn write(&self, encoder: &mut Encoder) {
        head(encoder, Self::OP, 6);
        let keys: Vec<TaskKey> = self.held.iter().map(|held| held.key.clone()).collect();
        named_keys(encoder, &keys);
        encoder.text("nbytes");
        encoder.array(self.held.len());
        self.held.iter().for_each(|held| encoder.unsigned(held.nbytes));
        encoder.text("types");
        encoder.array(self.held.len());
        (0..self.held.len()).for_each(|place| encoder.unsigned(place as u64));
        encoder.text("type_pickles");
        encoder.array(self.held.len());
        self.held.iter().for_each(|held| encoder.binary(&held.type_pickle));
        encoder.text("actors");
        let actors: Vec<TaskKey> = self.held.iter().filter(|held| held.is_actor).map(|held| held.key.clone()).collect();
        encoder.keys(&actors);
        encoder.text("runs");
        encoder.array(self.runs.len());
        self.runs.iter().for_each(|run| run.write(encoder));
    }
}

impl StartedRun {
    fn read(fields: &Fields<'_>) -> Result<Self, DocumentError> {
        Ok(Self {
            key: fields.key("key")?,
            run_id: fields.unsigned("run_id")?,
            has_thread: fields.boolean("has_thread")?,
            is_wanted: fields.boolean("is_wanted")?,
            resources: fields.numbers_by_name("resources")?,
        })
    }

    fn write(&self, encoder: &mut Encoder) {
        encoder.map(5);
        encoder.text("key");
        encoder.key(&self.key);
        encoder.text("run_id");
        encoder.unsigned(self.run_id);
        encoder.text("has_thread");
        encoder.boolean(self.has_thread);
        encoder.text("is_wanted");
        encoder.boolean(self.is_wanted);
        encoder.text("resources");
        encoder.map(self.resources.len());
        for (name, amount) in &self.resources {
            encoder.text(name);
            encoder.float(*amount);
        }
    }
}
