//! Finds in one pass where a key ends, if it is one as nearly all are.

/// Deeper tuples are left to those who judge.
const DEPTH_MAX: usize = 4;

/// How many bytes the key takes that these bytes begin with: ASCII text, integers from 0 on and tuples of them, in the
/// smallest encoding. `None` for all else, which may be a key or not.
pub(super) fn length(bytes: &[u8]) -> Option<usize> {
    end(bytes, 0, 0)
}

fn end(bytes: &[u8], at: usize, depth: usize) -> Option<usize> {
    let marker = *bytes.get(at)?;
    match marker {
        0x00..=0x7f => Some(at + 1),
        0xa0..=0xbf => text_end(bytes, at + 1, usize::from(marker - 0xa0)),
        0xd9 => {
            let length = usize::from(*bytes.get(at + 1)?);
            if length < 32 { None } else { text_end(bytes, at + 2, length) }
        }
        0x90..=0x9f if depth < DEPTH_MAX => (0..marker - 0x90).try_fold(at + 1, |element, _| end(bytes, element, depth + 1)),
        0xcc => (*bytes.get(at + 1)? >= 0x80).then_some(at + 2),
        0xcd => (*bytes.get(at + 1)? > 0 && bytes.len() >= at + 3).then_some(at + 3),
        0xce => (bytes.get(at + 1..at + 3)? != [0, 0] && bytes.len() >= at + 5).then_some(at + 5),
        _ => None,
    }
}

fn text_end(bytes: &[u8], start: usize, length: usize) -> Option<usize> {
    bytes.get(start..start + length)?.is_ascii().then_some(start + length)
}

#[cfg(test)]
mod tests {
    use super::length;
    use crate::dask::TaskKey;

    #[test]
    fn what_is_plain_is_a_key_of_that_length() {
        for text in ["", "x", &"x".repeat(31), &"x".repeat(32), &"x".repeat(255)] {
            for integer in [0, 127, 128, 255, 256, 65_535, 65_536, u64::from(u32::MAX)] {
                let mut document = Vec::new();
                rmp::encode::write_array_len(&mut document, 3).unwrap();
                rmp::encode::write_str(&mut document, text).unwrap();
                rmp::encode::write_uint(&mut document, integer).unwrap();
                rmp::encode::write_array_len(&mut document, 1).unwrap();
                rmp::encode::write_uint(&mut document, integer).unwrap();
                let whole = document.len();
                assert!(TaskKey::from_msgpack(document.clone()).is_ok());
                document.extend_from_slice(b"\x80rest");
                assert_eq!(length(&document), Some(whole), "{text} {integer}");
                for cut in 0..whole {
                    assert_eq!(length(&document[..cut]), None, "{text} {integer} {cut}");
                }
            }
        }
    }

    #[test]
    fn what_is_unusual_is_left_to_others() {
        for bytes in [
            &b""[..],
            b"\xc0",
            b"\xff",
            b"\x80",
            b"\xa1\xff",
            b"\xd9\x01x",
            b"\xcc\x7f",
            b"\xcd\x00\xff",
            b"\xce\x00\x00\xff\xff",
            b"\xcf\0\0\0\0\0\0\0\x01",
            b"\xca\0\0\0\0",
            b"\xc4\x01x",
            b"\x91\x91\x91\x91\x91\x01",
        ] {
            assert_eq!(length(bytes), None, "{bytes:?}");
        }
    }
}
