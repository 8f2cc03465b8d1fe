//! Plays again what the fuzz targets have found worth keeping.

use std::fs;
use std::path::Path;

use crate::hostile;

fn play(target: &str, take: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let inputs: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
    assert!(inputs.len() > 100, "the corpus is not where it should be");
    inputs.iter().for_each(|input| take(input));
}

#[test]
fn what_was_found_as_frames_harms_nobody() {
    play("frames", hostile::connect);
}

#[test]
fn what_was_found_as_messages_harms_nobody() {
    play("messages", hostile::say);
}
