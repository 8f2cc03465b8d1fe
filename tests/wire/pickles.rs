//! The pickles that we make are what Python takes.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use mainstay::dask::{
    DependencyNames, Partition, Priority, RunSpec, RunSpecForm, RunSpecPieces, ShuffleId, ShuffleSpec, TaskKey, WorkerAddress,
    Wrapping,
};
use mainstay::wire::messages::{ComputeTask, ToWorker};
use mainstay::wire::pickle::{Object, read_plain};
use mainstay::wire::{Value, encode_batch};

use crate::support::decode_one;

/// Each pickle and the Python expression that must hold of what it loads as, `x`.
fn examples() -> Vec<(Object, &'static str)> {
    let plain = Object::Dict(vec![
        (Object::text("n"), Object::None),
        (Object::Integer(-1), Object::Boolean(true)),
        (Object::Float(0.5), Object::Tuple(vec![Object::Integer(1 << 40), Object::Binary(Bytes::from_static(b"\x00\xff"))])),
        (Object::Tuple(Vec::new()), Object::List(vec![Object::text("é"), Object::Boolean(false)])),
    ]);
    let key = TaskKey::from_msgpack(&b"\x92\xa4load\x03"[..]).unwrap();
    let partial = Object::partial(
        Object::Global("builtins", "int"),
        vec![Object::text("ff")],
        vec![(Object::text("base"), Object::Integer(16))],
    );
    vec![
        (plain, "x == {'n': None, -1: True, 0.5: (1 << 40, b'\\x00\\xff'), (): ['é', False]}"),
        (Object::eval("6 * 7"), "x == 42"),
        (partial, "x() == 255"),
        (Object::value_error("bad row 7"), "type(x) is ValueError and x.args == ('bad row 7',)"),
        (Object::key_error("k"), "type(x) is KeyError and x.args == ('k',)"),
        (Object::runtime_error("r"), "type(x) is RuntimeError"),
        (Object::not_implemented_error("r"), "type(x) is NotImplementedError"),
        (Object::timeout_error("t"), "type(x) is __import__('asyncio').TimeoutError"),
        (Object::cancelled_error("c"), "type(x) is __import__('concurrent.futures').futures.CancelledError"),
        (
            Object::killed_worker(&key, &WorkerAddress::new("tcp://10.0.0.7:40001"), 3),
            "type(x).__name__ == 'KilledWorker' and x.task == ('load', 3) and x.allowed_failures == 3 \
             and x.last_worker.address == 'tcp://10.0.0.7:40001' and '10.0.0.7' in str(x)",
        ),
        (Object::shuffle_plugin(), "type(x).__name__ == 'ShuffleWorkerPlugin'"),
        (
            Object::p2p_consistency_error("stale"),
            "isinstance(x, RuntimeError) and type(x).__name__ == 'P2PConsistencyError' and x.args == ('stale',)",
        ),
        (
            shuffle_run(vec![Partition::Number(0), Partition::Number(3)]),
            "type(x).__name__ == 'ShuffleRunSpec' and (x.run_id, x.spec, x.span_id) == (7, 'spec', None) \
             and x.worker_for == {0: 'tcp://b:1', 3: 'tcp://a:1'}",
        ),
        (
            shuffle_run(vec![Partition::Chunk(vec![0, 1]), Partition::Chunk(vec![2, 0])]),
            "x.worker_for == {(0, 1): 'tcp://b:1', (2, 0): 'tcp://a:1'}",
        ),
        (Object::from(&Value::Unsigned(u64::MAX)), "x == 2**64 - 1"),
        (Object::from(&Value::Set(vec![1_i64.into()])), "x == {1}"),
    ]
}

fn shuffle_run(partitions: Vec<Partition>) -> Object {
    let pickle = Object::text("spec").dumps();
    let spec = ShuffleSpec { id: ShuffleId::new("s"), pickle, partitions, outputs: Vec::new() };
    Object::shuffle_run_spec(7, &spec, &["tcp://a:1", "tcp://b:1"].map(WorkerAddress::new), &[1, 0])
}

#[test]
fn a_pickle_is_the_same_bytes_always() {
    let expected = b"\x80\x04\x8d\x08\0\0\0\0\0\0\0builtins\x8d\x0a\0\0\0\0\0\0\0ValueError\x93(\x8d\x03\0\0\0\0\0\0\0badtR.";
    assert_eq!(Object::value_error("bad").dumps(), &expected[..]);
    assert_eq!(Object::List(vec![Object::Integer(1)]).dumps(), &b"\x80\x04](J\x01\0\0\0e."[..]);
}

#[test]
fn plain_data_is_read_back() {
    let (plain, _) = &examples()[0];
    let read = read_plain(&plain.dumps()).unwrap();
    assert_eq!(read.get("n"), Some(&Value::Nil));
    assert_eq!(Object::from(&read).dumps().len(), plain.dumps().len() - 1, "only the list became a tuple");
}

/// Runs where `make venv` made the Python; elsewhere the bytes above are the proof.
#[test]
fn python_loads_every_pickle() {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/venv/bin/python");
    if !python.exists() {
        return;
    }
    let mut program = String::from("import pickle\n");
    let objects = examples().into_iter().map(|(object, holds)| (object.dumps(), holds));
    for (pickle, holds) in objects.chain(run_specs()) {
        let hex: String = pickle.iter().map(|byte| format!("{byte:02x}")).collect();
        program += &format!("x = pickle.loads(bytes.fromhex('{hex}'))\nassert {holds}, x\n");
    }
    let mut child = Command::new(python).arg("-").stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(program.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

/// What a worker reads of tasks that give back what they are given, in every form, and what must hold of it.
fn run_specs() -> Vec<(Bytes, &'static str)> {
    let function = Object::eval("lambda values=(): sorted(dict(values).items(), key=str)").dumps();
    let run_coroutine = Object::eval("lambda blob, values=(): __import__('pickle').loads(blob)(values)").dumps();
    let form = |wrapping, names, imports: Option<&str>| RunSpecForm {
        wrapping,
        names,
        head: function.slice(..9),
        imports: imports.map(Arc::from),
    };
    let forms = vec![
        form(Wrapping::OperatorCall, DependencyNames::Numbers, None),
        form(Wrapping::Apply, DependencyNames::Keys, Some("__import__('sys').seen = 7")),
        form(Wrapping::Coroutine { function: run_coroutine }, DependencyNames::Numbers, None),
    ];
    let blob = function.slice(9..);
    let length = blob.len() as u32;
    let pieces = Arc::new(RunSpecPieces { forms, blobs: blob });
    let tuple = |encoded: &'static [u8]| TaskKey::from_msgpack(encoded).unwrap();
    let needs = [TaskKey::from_text("a"), tuple(b"\x92\xa4load\x03")];
    // ('é', -1, 300, -70000, 2**40, 2**64 - 1, 0.5, None, True, b'x', ())
    let odd = tuple(
        b"\x9b\xa2\xc3\xa9\xff\xcd\x01\x2c\xd2\xff\xfe\xee\x90\xd3\0\0\x01\0\0\0\0\0\xcf\xff\xff\xff\xff\xff\xff\xff\xff\
          \xcb\x3f\xe0\0\0\0\0\0\0\xc0\xc3\xc4\x01x\x90",
    );
    let run_spec = |key: &TaskKey, form, needs: &[TaskKey]| {
        let run_spec = RunSpec::of(&pieces, form, 0, length).unwrap();
        sent_run_spec(key, run_spec, needs)
    };
    vec![
        (run_spec(&needs[0], 0, &[]), "x.key == 'a' and x.dependencies == set() and x() == []"),
        (run_spec(&odd, 0, &[]), "x.key == ('é', -1, 300, -70000, 2**40, 2**64 - 1, 0.5, None, True, b'x', ())"),
        (run_spec(&odd, 0, &needs), "x.dependencies == {'a', ('load', 3)} and x({'a': 5, ('load', 3): 6}) == [(0, 5), (1, 6)]"),
        (run_spec(&odd, 1, &[]), "x() == [] and __import__('sys').seen == 7"),
        (run_spec(&odd, 1, &needs), "x({'a': 5, ('load', 3): 6}) == [('a', 5), (('load', 3), 6)]"),
        (run_spec(&odd, 2, &[]), "x.key[0] == 'é' and x() == []"),
        (run_spec(&odd, 2, &needs), "x({'a': 5, ('load', 3): 6}) == [(0, 5), (1, 6)]"),
    ]
}

/// The pickle that a worker finds in a message.
fn sent_run_spec(key: &TaskKey, run_spec: RunSpec, needs: &[TaskKey]) -> Bytes {
    let task = ComputeTask {
        key: key.clone(),
        run_id: 1,
        dependencies: needs.iter().map(|key| (key.clone(), 8, vec![WorkerAddress::new("tcp://10.0.0.7:40001")])).collect(),
        priority: Priority::new(0.0, 1.0, 2),
        run_spec,
        resource_restrictions: Vec::new(),
        actor: false,
        annotations: Value::Map(Vec::new()),
        span_id: None,
        stimulus_id: "s".to_owned(),
    };
    let sent = encode_batch(&[ToWorker::ComputeTask(Box::new(task))]).concat();
    let read = ToWorker::decode_batch(&decode_one(&sent).unwrap()).unwrap();
    let [ToWorker::ComputeTask(task)] = &read[..] else { panic!("one task was sent") };
    Bytes::copy_from_slice(task.run_spec.blob())
}

#[test]
fn a_run_spec_is_the_same_bytes_always() {
    let (pickle, _) = &run_specs()[0];
    let expected = b"\x80\x04\x8c\x0fdask._task_spec\x8c\x04Task\x93\x94(\x8c\x01a\x8c\x08operator\x8c\x04call\x93\
        h\x00(N\x8c\x06pickle\x8c\x05loads\x93C";
    assert!(pickle.starts_with(expected), "{pickle:?}");
    assert!(pickle.ends_with(b".tRtR."), "{pickle:?}");
}
