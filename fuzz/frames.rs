//! What comes over a connection before anything is known of it but its limits.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../tests/wire/hostile.rs"]
mod hostile;

fuzz_target!(|bytes: &[u8]| hostile::connect(bytes));
