//! What a message may say, to everything that reads messages.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../tests/wire/hostile.rs"]
mod hostile;

fuzz_target!(|bytes: &[u8]| hostile::say(bytes));
