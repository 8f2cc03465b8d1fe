//! Laws that hold for any bytes and any value.

use bytes::Bytes;
use mainstay::dask::{Priority, RunSpec, Serialized, TaskKey, WorkerAddress};
use mainstay::wire::messages::{ComputeTask, ToWorker};
use mainstay::wire::opaque::plain_bytes;
use mainstay::wire::pickle::{Object, PlainError, read_plain};
use mainstay::wire::{Limits, Pickled, Value, encode_batch};
use proptest::collection::vec;
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::test_runner::RngSeed;

use crate::hostile::{feed, read_in_every_way};
use crate::support::{Capture, arrived, captures};

/// Always the same cases; `PROPTEST_CASES` asks for more of them.
fn config(cases: u32) -> ProptestConfig {
    let default = ProptestConfig::default();
    ProptestConfig { cases: cases.max(default.cases), rng_seed: RngSeed::Fixed(7), failure_persistence: None, ..default }
}

/// Cuts, turns and repeats bytes of a capture.
#[derive(Clone, Debug)]
enum Mutation {
    Set { at: prop::sample::Index, to: u8 },
    Remove { at: prop::sample::Index, length: usize },
    Repeat { at: prop::sample::Index, length: usize },
}

impl Mutation {
    /// Leaves the prelude whole where it can, so that the change reaches what stands behind it.
    fn apply(&self, bytes: &mut Vec<u8>, start: usize) {
        let place = |index: &prop::sample::Index| start + index.index((bytes.len() - start).max(1));
        match self {
            Self::Set { at, to } => {
                let at = place(at);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = *to;
                }
            }
            Self::Remove { at, length } => {
                let at = place(at).min(bytes.len());
                let end = (at + length).min(bytes.len());
                bytes.drain(at..end);
            }
            Self::Repeat { at, length } => {
                let at = place(at).min(bytes.len());
                let end = (at + length).min(bytes.len());
                let repeated = bytes[at..end].to_vec();
                bytes.splice(at..at, repeated);
            }
        }
    }
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        4 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, to)| Mutation::Set { at, to }),
        1 => (any::<prop::sample::Index>(), 1..20_usize).prop_map(|(at, length)| Mutation::Remove { at, length }),
        1 => (any::<prop::sample::Index>(), 1..20_usize).prop_map(|(at, length)| Mutation::Repeat { at, length }),
    ]
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Nil),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-300_i64..300).prop_map(Value::from),
        prop::num::f64::NORMAL.prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
        vec(any::<u8>(), 0..300).prop_map(|bytes| Value::Binary(bytes.into())),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        8 => scalar(),
        1 => vec(any::<u8>(), 0..100).prop_map(|bytes| plain_bytes(bytes.into()).into()),
        1 => vec(any::<u8>(), 0..100).prop_map(|bytes| Pickled::new(&bytes).into()),
    ];
    leaf.prop_recursive(5, 60, 20, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..20).prop_map(Value::Array),
            vec((inner.clone(), inner.clone()), 0..10).prop_map(Value::Map),
            vec(inner, 0..5).prop_map(Value::Set),
        ]
    })
}

fn key() -> impl Strategy<Value = TaskKey> {
    prop_oneof![
        "[a-z]{1,20}(-[0-9a-f]{8})?".prop_map(|text| TaskKey::from_text(&text)),
        ("[a-z]{1,10}", any::<i32>()).prop_map(|(name, number)| {
            let tuple = Value::Array(vec![name.into(), i64::from(number).into()]);
            tuple.as_key().expect("a tuple of text and number is a key")
        })
    ]
}

fn compute_task() -> impl Strategy<Value = ToWorker> {
    let dependency = (key(), any::<u32>(), vec("tcp://10.0.0.[0-9]:[0-9]{4}", 1..3))
        .prop_map(|(key, nbytes, workers)| (key, u64::from(nbytes), workers.into_iter().map(WorkerAddress::new).collect()));
    let numbers = (any::<u64>(), -9..9_i32, any::<bool>());
    // Some are above the size from which frames are not copied.
    let pickle =
        (any::<u8>(), prop_oneof![9 => 0..3000_usize, 1 => 65_000..70_000_usize]).prop_map(|(byte, length)| vec![byte; length]);
    (key(), numbers, vec(dependency, 0..4), pickle, "[a-z0-9-]{0,30}").prop_map(
        |(key, (run_id, user, actor), dependencies, pickle, stimulus_id)| {
            ToWorker::ComputeTask(Box::new(ComputeTask {
                key,
                run_id,
                dependencies,
                priority: Priority::new(f64::from(user) / 2.0, 1.0, 7),
                run_spec: RunSpec::new(pickle),
                resource_restrictions: vec![("GPU".to_owned(), 1.5)],
                actor,
                annotations: Value::map([("executor", "offload".into())]),
                span_id: None,
                stimulus_id,
            }))
        },
    )
}

proptest! {
    #![proptest_config(config(1000))]

    #[test]
    fn random_bytes_are_messages_or_errors(bytes in vec(any::<u8>(), 0..600), piece in 1..100_usize) {
        for limits in [Limits::HANDSHAKE, Limits::UNREGISTERED, Limits::REGISTERED] {
            feed(limits, &bytes, piece);
        }
    }

    #[test]
    fn random_documents_are_values_or_errors(document in vec(any::<u8>(), 0..600), frames in vec(vec(any::<u8>(), 0..60), 0..4)) {
        let frames = std::iter::once(document).chain(frames).map(Bytes::from).collect();
        read_in_every_way(&mainstay::wire::Message { frames });
    }

    #[test]
    fn random_pickles_are_plain_data_or_errors(pickle in vec(any::<u8>(), 0..200)) {
        let _ = read_plain(&pickle);
    }

    #[test]
    fn a_value_comes_back_as_it_went(value in value()) {
        let message = arrived(value.encode());
        prop_assert_eq!(Value::decode(&message).unwrap(), value);
    }

    #[test]
    fn plain_data_goes_through_a_pickle(value in value()) {
        let has_more = format!("{value:?}").contains("Serialized(") || format!("{value:?}").contains("Pickled(");
        let pickle = Object::from(&value).dumps();
        // Sets and long integers are made by calls.
        match read_plain(&pickle) {
            Ok(read) => prop_assert!(has_more || read == value),
            Err(error) => prop_assert_eq!(error, PlainError::NotPlain { opcode: 0x93 }),
        }
    }
}

proptest! {
    #![proptest_config(config(200))]

    #[test]
    fn a_batch_comes_back_as_it_went(batch in vec(compute_task(), 0..5)) {
        let message = arrived(encode_batch(&batch));
        prop_assert_eq!(ToWorker::decode_batch(&message).unwrap(), batch);
    }

    #[test]
    fn a_value_moves_from_message_to_message(
        header in vec(any::<u8>(), 0..60),
        frames in vec((any::<u8>(), 0..9000_usize).prop_map(|(byte, length)| vec![byte; length]), 0..5),
        before in 0..4_usize,
    ) {
        // Any header with a number of frames is passed on, whatever else it holds.
        let mut head = b"\x82\xa1x\xc4".to_vec();
        head.push(header.len() as u8);
        head.extend(header);
        head.extend(b"\xaenum-sub-frames");
        head.push(frames.len() as u8);
        let moved = Serialized { header: head.into(), frames: frames.into_iter().map(Bytes::from).collect() };
        let mut values = vec![Value::from(plain_bytes(Bytes::from_static(b"other"))); before];
        values.push(moved.clone().into());
        let Value::Array(read) = Value::decode(&arrived(Value::Array(values).encode())).unwrap() else { unreachable!() };
        prop_assert_eq!(read.last(), Some(&Value::from(moved)));
    }
}

#[test]
fn mutated_captures_are_messages_or_errors() {
    use proptest::test_runner::TestRunner;

    let captures: Vec<Capture> = captures().into_iter().filter(|capture| capture.bytes.len() < 6000).collect();
    let mut runner = TestRunner::new(config(3000));
    let strategy = (0..captures.len(), vec(mutation(), 1..6), 1..500_usize, any::<bool>());
    let outcome = runner.run(&strategy, |(index, mutations, piece, spares_prelude)| {
        let mut bytes = captures[index].bytes.clone();
        let count = u64::from_le_bytes(bytes[8..16].try_into().expect("eight bytes")) as usize;
        let start = if spares_prelude { (2 + count) * 8 } else { 0 };
        for mutation in mutations {
            let start = start.min(bytes.len());
            mutation.apply(&mut bytes, start);
        }
        feed(Limits::REGISTERED, &bytes, piece);
        Ok(())
    });
    outcome.unwrap();
}
