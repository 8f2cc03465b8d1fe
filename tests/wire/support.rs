//! Reading captures, and feeding bytes to the decoders.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use mainstay::wire::{FrameDecoder, FrameError, Limits, Message};

/// One recorded message.
pub(crate) struct Capture {
    pub(crate) folder: String,
    /// The op, with a number where there are several examples.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(crate) bytes: Vec<u8>,
}

impl Capture {
    pub(crate) fn op(&self) -> &str {
        self.name.split_once('.').map_or(&*self.name, |(op, _)| op)
    }

    pub(crate) fn message(&self) -> Message {
        decode_one(&self.bytes).unwrap_or_else(|error| panic!("{}: {error}", self.path.display()))
    }
}

/// All that `dev/capture.py` recorded, in order.
pub(crate) fn captures() -> Vec<Capture> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire/captures");
    let mut captures = Vec::new();
    for folder in sorted(&root) {
        for path in sorted(&folder).into_iter().filter(|path| path.extension().is_some_and(|extension| extension == "bin")) {
            captures.push(Capture {
                folder: name(&folder),
                name: name(&path).trim_end_matches(".bin").to_owned(),
                bytes: fs::read(&path).unwrap(),
                path,
            });
        }
    }
    assert!(captures.len() > 100, "the captures are not where they should be");
    captures
}

fn sorted(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_string_lossy().into_owned()
}

/// The one message that these bytes are.
pub(crate) fn decode_one(bytes: &[u8]) -> Result<Message, FrameError> {
    let mut decoder = FrameDecoder::new(Limits::REGISTERED);
    decoder.buffer().extend_from_slice(bytes);
    let message = decoder.poll()?.expect("the bytes are a whole message");
    assert!(!decoder.is_in_message(), "more bytes follow");
    Ok(message)
}

/// The message that these chunks are when they arrive.
pub(crate) fn arrived(chunks: Vec<Bytes>) -> Message {
    decode_one(&chunks.concat()).expect("what we write is within limits")
}
