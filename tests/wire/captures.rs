//! What stock peers say is read as it should be, and what we say is what a stock scheduler says, byte for byte.

use std::fmt::Write as _;
use std::{env, fs};

use mainstay::wire::messages::rpc::{HeartbeatWorker, RegisterClient, RegisterWorker};
use mainstay::wire::messages::{FromClient, FromWorker, Request, ToClient, ToWorker};
use mainstay::wire::{Handshake, Message, Value, encode_batch};

use crate::support::{Capture, arrived, captures};

/// Where a stock scheduler says more than we do.
const SAID_SHORTER: &[(&str, &str, &str)] =
    &[("to_client", "key-in-memory", "a stock scheduler repeats a scattered key's workers, which Clients do not read")];

#[test]
fn every_capture_reads_as_its_text_says() {
    let is_update = env::var_os("UPDATE_EXPECT").is_some();
    let mut wrong = Vec::new();
    for capture in captures() {
        let found = read(&capture);
        let path = capture.path.with_extension("txt");
        if is_update {
            fs::write(&path, found).unwrap();
        } else if fs::read_to_string(&path).unwrap_or_default() != found {
            wrong.push(path.display().to_string());
        }
    }
    assert!(wrong.is_empty(), "these differ; UPDATE_EXPECT=1 rewrites them:\n{}", wrong.join("\n"));
}

#[test]
fn every_capture_is_written_again_byte_for_byte() {
    for capture in captures() {
        let message = capture.message();
        let value = Value::decode(&message).unwrap();
        assert_same(&capture, &message, &arrived(value.encode()));
    }
}

#[test]
fn what_we_say_is_what_a_stock_scheduler_says() {
    let mut compared = 0;
    for capture in captures() {
        let message = capture.message();
        let ours = match capture.folder.as_str() {
            "to_worker" => encode_batch(&ToWorker::decode_batch(&message).unwrap()),
            "to_client" => encode_batch(&ToClient::decode_batch(&message).unwrap()),
            _ => continue,
        };
        let is_shorter = SAID_SHORTER.iter().any(|(folder, op, _)| *folder == capture.folder && *op == capture.op());
        if !is_shorter {
            assert_same(&capture, &message, &arrived(ours));
            compared += 1;
        }
    }
    assert!(compared > 15, "only {compared} messages were compared");
}

#[test]
fn a_stand_in_for_a_peer_says_what_we_read() {
    for capture in captures() {
        let message = capture.message();
        match capture.folder.as_str() {
            "from_worker" => {
                let read = FromWorker::decode_batch(&message).unwrap();
                assert_eq!(FromWorker::decode_batch(&arrived(encode_batch(&read))).unwrap(), read, "{}", capture.name);
            }
            "from_client" => {
                let read = FromClient::decode_batch(&message).unwrap();
                assert_eq!(FromClient::decode_batch(&arrived(encode_batch(&read))).unwrap(), read, "{}", capture.name);
            }
            _ => {}
        }
    }
}

fn assert_same(capture: &Capture, theirs: &Message, ours: &Message) {
    // Value by value first: that shows what differs.
    assert_eq!(Value::decode(ours).unwrap(), Value::decode(theirs).unwrap(), "{}", capture.path.display());
    assert_eq!(ours, theirs, "{}", capture.path.display());
}

/// The text of a capture: what the codec makes of it.
fn read(capture: &Capture) -> String {
    let message = capture.message();
    let mut text = String::new();
    let written = match capture.folder.as_str() {
        "handshake" => write!(text, "{:#?}", Handshake::decode(&message).unwrap()),
        "from_worker" => write!(text, "{:#?}", FromWorker::decode_batch(&message).unwrap()),
        "from_client" => write!(text, "{:#?}", FromClient::decode_batch(&message).unwrap()),
        "to_worker" => write!(text, "{:#?}", ToWorker::decode_batch(&message).unwrap()),
        "to_client" => write!(text, "{:#?}", ToClient::decode_batch(&message).unwrap()),
        "rpc_scheduler" => return request(message, capture.op()),
        _ => write!(text, "{:#?}", Value::decode(&message).unwrap()),
    };
    written.unwrap();
    text.push('\n');
    text
}

fn request(message: Message, op: &str) -> String {
    let shown = Value::decode(&message).unwrap();
    let request = Request::decode(message).unwrap();
    assert_eq!(request.op(), op);
    let typed = match op {
        RegisterWorker::OP => format!("{:#?}\n", RegisterWorker::read(&request).unwrap()),
        RegisterClient::OP => format!("{:#?}\n", RegisterClient::read(&request).unwrap()),
        HeartbeatWorker::OP => format!("{:#?}\n", HeartbeatWorker::read(&request).unwrap()),
        _ => String::new(),
    };
    let release = request.release().map_or(String::new(), |release| format!("release: {}\n", release.version()));
    format!("reply: {}\nclose: {}\n{release}{typed}{shown:#?}\n", request.reply, request.close)
}
