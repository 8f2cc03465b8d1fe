//! The pickles that we make are what Python takes.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use mainstay::dask::{TaskKey, WorkerAddress};
use mainstay::wire::Value;
use mainstay::wire::pickle::{Object, read_plain};

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
        (Object::from(&Value::Unsigned(u64::MAX)), "x == 2**64 - 1"),
        (Object::from(&Value::Set(vec![1_i64.into()])), "x == {1}"),
    ]
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
    for (object, holds) in examples() {
        let hex: String = object.dumps().iter().map(|byte| format!("{byte:02x}")).collect();
        program += &format!("x = pickle.loads(bytes.fromhex('{hex}'))\nassert {holds}, x\n");
    }
    let mut child = Command::new(python).arg("-").stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(program.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}
