//! A name for a graph: equal for equal sources, whoever computes it and when.

use serde_json::Value;

use crate::server::{Actors, BuildRequest, InlineTask, Input, Source};

/// A hash of all that decides the graph, in 32 hexadecimal digits.
///
/// Stable across processes and releases; objects count as equal whatever the order of their fields. Not a secret keeper:
/// the text of a Secret goes into it, so it is not shown.
pub(super) fn of(build: &BuildRequest) -> String {
    let BuildRequest { name: _, source, parameters, inputs, collections, optimize_graph, optimize_options, actors } = build;
    let mut hash = Fnv128::new();
    match source {
        Source::Python { text } => hash.text("python").text(text),
        Source::Entrypoint { callable, args, kwargs } => {
            hash.text("entrypoint").text(callable).values(args.iter()).object(kwargs.iter())
        }
        Source::Tasks(tasks) => {
            hash.text("tasks").number(tasks.len());
            tasks.iter().for_each(|task| add_task(&mut hash, task));
            &mut hash
        }
    };
    hash.object(parameters.iter()).number(inputs.len());
    for (variable, Input { collection, output }) in inputs {
        hash.text(variable).text(collection).text(output);
    }
    hash.number(collections.len());
    for name in collections {
        hash.text(name);
    }
    hash.flag(*optimize_graph).object(optimize_options.iter());
    let Actors { all, tasks } = actors;
    hash.flag(*all).number(tasks.len());
    for (name, actor) in tasks {
        hash.text(name).flag(*actor);
    }
    format!("{:032x}", hash.0)
}

fn add_task(hash: &mut Fnv128, task: &InlineTask) {
    let InlineTask { key, call, args, kwargs, retries, priority, resources, workers, allow_other_workers, actor } = task;
    hash.text(key).text(call).values(args.iter()).object(kwargs.iter()).flag(*actor);
    hash.text(&format!("{retries:?} {priority:?} {resources:?} {workers:?} {allow_other_workers:?}"));
}

/// Fowler, Noll and Vo's hash 1a in 128 bits: short, and good enough where nobody gains by a collision.
struct Fnv128(u128);

impl Fnv128 {
    const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

    const fn new() -> Self {
        Self(Self::OFFSET)
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        for &byte in bytes {
            self.0 = (self.0 ^ u128::from(byte)).wrapping_mul(Self::PRIME);
        }
        self
    }

    /// With its length before it, so that neighbours cannot trade letters.
    fn text(&mut self, text: &str) -> &mut Self {
        self.number(text.len()).bytes(text.as_bytes())
    }

    fn number(&mut self, number: usize) -> &mut Self {
        self.bytes(&(number as u64).to_be_bytes())
    }

    fn flag(&mut self, flag: bool) -> &mut Self {
        self.bytes(&[u8::from(flag)])
    }

    fn values<'a>(&mut self, values: impl ExactSizeIterator<Item = &'a Value>) -> &mut Self {
        self.number(values.len());
        values.for_each(|value| {
            self.value(value);
        });
        self
    }

    fn object<'a>(&mut self, fields: impl Iterator<Item = (&'a String, &'a Value)>) -> &mut Self {
        let mut fields: Vec<(&String, &Value)> = fields.collect();
        fields.sort_unstable_by_key(|(name, _)| *name);
        self.number(fields.len());
        for (name, value) in fields {
            self.text(name).value(value);
        }
        self
    }

    fn value(&mut self, value: &Value) -> &mut Self {
        match value {
            Value::Null => self.text("null"),
            Value::Bool(flag) => self.text("flag").flag(*flag),
            Value::Number(number) => self.text("number").text(&number.to_string()),
            Value::String(text) => self.text("text").text(text),
            Value::Array(items) => self.text("list").values(items.iter()),
            Value::Object(fields) => self.text("object").object(fields.iter()),
        }
    }
}
