//! Tells what class a pickled object is of, without reading the rest.
//!
//! Source: CPython 3.11, Lib/pickletools.py: `PROTO`, `FRAME`, `SHORT_BINUNICODE`, `MEMOIZE`, `STACK_GLOBAL`.

const PROTO: u8 = 0x80;
const FRAME: u8 = 0x95;
const SHORT_BINUNICODE: u8 = 0x8c;
const MEMOIZE: u8 = 0x94;
const STACK_GLOBAL: u8 = 0x93;

/// The module and the name with which a pickle begins, if it begins with one.
pub fn first_global(pickle: &[u8]) -> Option<(&str, &str)> {
    let [PROTO, 4 | 5, FRAME, rest @ ..] = pickle else { return None };
    // A frame's length has eight bytes.
    let (module, rest) = short_text(rest.get(8..)?)?;
    let (name, rest) = short_text(rest)?;
    (rest.first() == Some(&STACK_GLOBAL)).then_some((module, name))
}

/// A text, which is memoized, and what comes after.
fn short_text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let [SHORT_BINUNICODE, length, rest @ ..] = bytes else { return None };
    let (text, rest) = rest.split_at_checked(usize::from(*length))?;
    let [MEMOIZE, rest @ ..] = rest else { return None };
    Some((std::str::from_utf8(text).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_class_of_what_python_writes_is_read() {
        let pickle = b"\x80\x05\x95\x10\0\0\0\0\0\0\0\x8c\x07decimal\x94\x8c\x07Decimal\x94\x93\x94\x8c\x011\x94\x85\x94R\x94.";
        assert_eq!(first_global(pickle), Some(("decimal", "Decimal")));
        for length in 0..29 {
            assert_eq!(first_global(&pickle[..length]), None, "{length}");
        }
        assert_eq!(first_global(b"\x80\x04\x95\x03\0\0\0\0\0\0\0K\x01."), None);
    }
}
