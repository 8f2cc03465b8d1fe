//! Reads pickles of plain data: None, booleans, integers, floats, texts, bytes, tuples, lists, dicts and sets.
//!
//! Runs nothing and imports nothing. Clients send the annotations of a graph in this form; annotations with a value that
//! is more than data go to the builder as they are.
//!
//! Source: CPython 3.11, Lib/pickletools.py.

use bytes::Bytes;
use thiserror::Error;

use crate::wire::limits::{DEPTH_MAX, PLAIN_PICKLE_BYTES_MAX};
use crate::wire::value::Value;

/// What one object costs at least against [`PLAIN_PICKLE_BYTES_MAX`].
const OBJECT_COST: usize = 32;

/// Why a pickle was not read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlainError {
    #[error("the pickle is not plain data: it uses opcode 0x{opcode:02x}")]
    NotPlain { opcode: u8 },
    #[error("the pickle ends in the middle")]
    Truncated,
    #[error("the pickle takes from an empty stack, or finds there what does not fit")]
    Stack,
    #[error("the pickle holds text that is not UTF-8")]
    NotText,
    #[error("the pickle holds an integer of more than 64 bits")]
    LongInteger,
    #[error("the pickle nests deeper than {DEPTH_MAX}")]
    TooDeep,
    #[error("the pickle holds more than {PLAIN_PICKLE_BYTES_MAX} bytes of data")]
    TooLong,
}

/// Reads a pickle of plain data. Tuples and lists are arrays, as in messages.
///
/// # Errors
/// When the pickle is anything more than plain data, or too large or too deep.
pub fn read_plain(pickle: &[u8]) -> Result<Value, PlainError> {
    if pickle.len() > PLAIN_PICKLE_BYTES_MAX {
        return Err(PlainError::TooLong);
    }
    let mut machine = Machine { rest: pickle, nodes: Vec::new(), stack: Vec::new(), memo: Vec::new() };
    let root = machine.run()?;
    // An object may stand in many places: count what it takes written out.
    let mut budget = PLAIN_PICKLE_BYTES_MAX;
    machine.build(root, 0, &mut budget)
}

/// An object of the pickle. Containers name their elements by number: a pickle may fill them later.
enum Node {
    Scalar(Value),
    Array(Vec<usize>),
    Set(Vec<usize>),
    Map(Vec<(usize, usize)>),
}

enum Slot {
    Node(usize),
    Mark,
}

struct Machine<'p> {
    rest: &'p [u8],
    nodes: Vec<Node>,
    stack: Vec<Slot>,
    memo: Vec<Option<usize>>,
}

impl<'p> Machine<'p> {
    /// Runs the pickle to its end and gives the object that is left.
    fn run(&mut self) -> Result<usize, PlainError> {
        loop {
            let opcode = self.byte()?;
            if opcode == b'.' {
                return self.pop();
            }
            self.step(opcode)?;
        }
    }

    fn step(&mut self, opcode: u8) -> Result<(), PlainError> {
        match opcode {
            // PROTO and FRAME say nothing that matters here.
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'(' => self.stack.push(Slot::Mark),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_to_mark()?),
            0x94 | b'q' | b'r' => self.remember(opcode)?,
            b'h' | b'j' => self.recall(opcode)?,
            b')' => self.push(Node::Array(Vec::new())),
            0x85..=0x87 => self.short_tuple(usize::from(opcode - 0x84))?,
            b't' => {
                let elements = self.pop_to_mark()?;
                self.push(Node::Array(elements));
            }
            b']' => self.push(Node::Array(Vec::new())),
            0x8f => self.push(Node::Set(Vec::new())),
            0x91 => {
                let elements = self.pop_to_mark()?;
                self.push(Node::Set(elements));
            }
            b'}' => self.push(Node::Map(Vec::new())),
            b'a' => {
                let element = self.pop()?;
                self.extend(vec![element])?;
            }
            b'e' | 0x90 => {
                let elements = self.pop_to_mark()?;
                self.extend(elements)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(&[key, value])?;
            }
            b'u' => {
                let elements = self.pop_to_mark()?;
                self.set_items(&elements)?;
            }
            other => {
                let scalar = self.scalar(other)?;
                self.push(Node::Scalar(scalar));
            }
        }
        Ok(())
    }

    fn scalar(&mut self, opcode: u8) -> Result<Value, PlainError> {
        Ok(match opcode {
            b'N' => Value::Nil,
            0x88 => Value::Boolean(true),
            0x89 => Value::Boolean(false),
            b'K' => Value::Integer(i64::from(self.byte()?)),
            b'M' => Value::Integer(i64::from(u16::from_le_bytes(self.fixed()?))),
            b'J' => Value::Integer(i64::from(i32::from_le_bytes(self.fixed()?))),
            0x8a => self.long_integer()?,
            b'G' => Value::Float(f64::from_be_bytes(self.fixed()?)),
            0x8c | b'X' | 0x8d => {
                let length = self.length(opcode == 0x8c, opcode == b'X')?;
                let text = std::str::from_utf8(self.take(length)?).map_err(|_| PlainError::NotText)?;
                Value::Text(text.to_owned())
            }
            b'C' | b'B' | 0x8e => {
                let length = self.length(opcode == b'C', opcode == b'B')?;
                Value::Binary(Bytes::copy_from_slice(self.take(length)?))
            }
            opcode => return Err(PlainError::NotPlain { opcode }),
        })
    }

    /// The little-endian two's complement of LONG1.
    fn long_integer(&mut self) -> Result<Value, PlainError> {
        let length = usize::from(self.byte()?);
        let bytes = self.take(length)?;
        let is_negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut extended = [if is_negative { 0xff } else { 0 }; 16];
        extended.get_mut(..length).ok_or(PlainError::LongInteger)?.copy_from_slice(bytes);
        let integer = i128::from_le_bytes(extended);
        match (i64::try_from(integer), u64::try_from(integer)) {
            (Ok(integer), _) => Ok(Value::Integer(integer)),
            (_, Ok(integer)) => Ok(Value::Unsigned(integer)),
            _ => Err(PlainError::LongInteger),
        }
    }

    fn short_tuple(&mut self, length: usize) -> Result<(), PlainError> {
        let mut elements = Vec::with_capacity(length);
        for _ in 0..length {
            elements.push(self.pop()?);
        }
        elements.reverse();
        self.push(Node::Array(elements));
        Ok(())
    }

    /// Adds to the list or set on top of the stack.
    fn extend(&mut self, elements: Vec<usize>) -> Result<(), PlainError> {
        let top = self.top()?;
        match &mut self.nodes[top] {
            Node::Array(list) | Node::Set(list) => list.extend(elements),
            Node::Scalar(_) | Node::Map(_) => return Err(PlainError::Stack),
        }
        Ok(())
    }

    /// Adds keys and values, in turn, to the dict on top of the stack.
    fn set_items(&mut self, elements: &[usize]) -> Result<(), PlainError> {
        let top = self.top()?;
        let Node::Map(entries) = &mut self.nodes[top] else { return Err(PlainError::Stack) };
        let pairs = elements.chunks_exact(2);
        if !pairs.remainder().is_empty() {
            return Err(PlainError::Stack);
        }
        entries.extend(pairs.map(|pair| (pair[0], pair[1])));
        Ok(())
    }

    fn remember(&mut self, opcode: u8) -> Result<(), PlainError> {
        let top = self.top()?;
        let index = match opcode {
            b'q' => usize::from(self.byte()?),
            b'r' => u32::from_le_bytes(self.fixed()?) as usize,
            _ => self.memo.len(),
        };
        // Picklers count up; a gap would be room without bytes.
        if index > self.memo.len() {
            return Err(PlainError::Stack);
        }
        if index == self.memo.len() {
            self.memo.push(None);
        }
        self.memo[index] = Some(top);
        Ok(())
    }

    fn recall(&mut self, opcode: u8) -> Result<(), PlainError> {
        let index = if opcode == b'h' { usize::from(self.byte()?) } else { u32::from_le_bytes(self.fixed()?) as usize };
        let node = self.memo.get(index).copied().flatten().ok_or(PlainError::Stack)?;
        self.stack.push(Slot::Node(node));
        Ok(())
    }

    fn push(&mut self, node: Node) {
        self.stack.push(Slot::Node(self.nodes.len()));
        self.nodes.push(node);
    }

    fn pop(&mut self) -> Result<usize, PlainError> {
        match self.stack.pop() {
            Some(Slot::Node(node)) => Ok(node),
            Some(Slot::Mark) | None => Err(PlainError::Stack),
        }
    }

    fn pop_to_mark(&mut self) -> Result<Vec<usize>, PlainError> {
        let mut elements = Vec::new();
        loop {
            match self.stack.pop() {
                Some(Slot::Node(node)) => elements.push(node),
                Some(Slot::Mark) => break,
                None => return Err(PlainError::Stack),
            }
        }
        elements.reverse();
        Ok(elements)
    }

    fn top(&self) -> Result<usize, PlainError> {
        match self.stack.last() {
            Some(Slot::Node(node)) => Ok(*node),
            Some(Slot::Mark) | None => Err(PlainError::Stack),
        }
    }

    /// Writes an object out. One that contains itself ends as too deep.
    fn build(&self, node: usize, depth: usize, budget: &mut usize) -> Result<Value, PlainError> {
        if depth > DEPTH_MAX {
            return Err(PlainError::TooDeep);
        }
        let cost = OBJECT_COST
            + match &self.nodes[node] {
                Node::Scalar(Value::Text(text)) => text.len(),
                Node::Scalar(Value::Binary(binary)) => binary.len(),
                Node::Scalar(_) | Node::Array(_) | Node::Set(_) | Node::Map(_) => 0,
            };
        *budget = budget.checked_sub(cost).ok_or(PlainError::TooLong)?;
        let mut all = |nodes: &[usize]| -> Result<Vec<Value>, PlainError> {
            nodes.iter().map(|element| self.build(*element, depth + 1, budget)).collect()
        };
        Ok(match &self.nodes[node] {
            Node::Scalar(value) => value.clone(),
            Node::Array(elements) => Value::Array(all(elements)?),
            Node::Set(elements) => Value::Set(all(elements)?),
            Node::Map(entries) => {
                let mut built = Vec::new();
                for (key, value) in entries {
                    built.push((self.build(*key, depth + 1, budget)?, self.build(*value, depth + 1, budget)?));
                }
                Value::Map(built)
            }
        })
    }

    /// A length of one byte, of four, or else of eight.
    fn length(&mut self, is_short: bool, is_long: bool) -> Result<usize, PlainError> {
        let length = match (is_short, is_long) {
            (true, _) => u64::from(self.byte()?),
            (_, true) => u64::from(u32::from_le_bytes(self.fixed()?)),
            _ => u64::from_le_bytes(self.fixed()?),
        };
        usize::try_from(length).map_err(|_| PlainError::Truncated)
    }

    fn byte(&mut self) -> Result<u8, PlainError> {
        Ok(self.fixed::<1>()?[0])
    }

    fn fixed<const LENGTH: usize>(&mut self) -> Result<[u8; LENGTH], PlainError> {
        self.take(LENGTH)?.try_into().map_err(|_| PlainError::Truncated)
    }

    fn take(&mut self, length: usize) -> Result<&'p [u8], PlainError> {
        let (front, back) = self.rest.split_at_checked(length).ok_or(PlainError::Truncated)?;
        self.rest = back;
        Ok(front)
    }
}

#[cfg(test)]
mod tests {
    use super::{PlainError, read_plain};
    use crate::wire::pickle::Object;
    use crate::wire::value::Value;

    #[test]
    fn what_python_writes_is_read() {
        // pickle.dumps({"retries": 2, "workers": ["a", "a"], "resources": {"GPU": 1.5}, "none": None, "t": (True, -1, 2**40, b"x")}, 5)
        let pickle = b"\x80\x05\x95d\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x07retries\x94K\x02\x8c\x07workers\x94]\x94(\x8c\x01a\
            \x94h\x04e\x8c\tresources\x94}\x94\x8c\x03GPU\x94G?\xf8\x00\x00\x00\x00\x00\x00s\x8c\x04none\x94N\x8c\x01t\x94(\x88J\
            \xff\xff\xff\xff\x8a\x06\x00\x00\x00\x00\x00\x01C\x01x\x94t\x94u.";
        let expected = Value::map([
            ("retries", 2_i64.into()),
            ("workers", vec!["a", "a"].into()),
            ("resources", Value::map([("GPU", 1.5.into())])),
            ("none", Value::Nil),
            ("t", Value::Array(vec![true.into(), (-1_i64).into(), (1_i64 << 40).into(), Value::Binary("x".into())])),
        ]);
        assert_eq!(read_plain(pickle), Ok(expected));
    }

    #[test]
    fn what_would_run_code_is_refused() {
        assert_eq!(read_plain(&Object::eval("1").dumps()), Err(PlainError::NotPlain { opcode: 0x93 }));
        assert_eq!(read_plain(b"cos\nsystem\n(S'true'\ntR."), Err(PlainError::NotPlain { opcode: b'c' }));
    }

    #[test]
    fn what_grows_without_end_is_refused() {
        // A list that contains itself.
        assert_eq!(read_plain(b"]\x94h\x00a."), Err(PlainError::TooDeep));
        // Each list holds the one before ten times.
        let mut bomb = b"]\x94".to_vec();
        for level in 0..20 {
            bomb.extend_from_slice(b"](");
            bomb.extend([b'h', level].repeat(10));
            bomb.extend_from_slice(b"e\x94");
        }
        bomb.push(b'.');
        assert_eq!(read_plain(&bomb), Err(PlainError::TooLong));
    }

    #[test]
    fn what_is_no_pickle_is_refused() {
        for (pickle, error) in [
            (&b""[..], PlainError::Truncated),
            (b".", PlainError::Stack),
            (b"(.", PlainError::Stack),
            (b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff", PlainError::Truncated),
            (b"\x8c\x01\xff.", PlainError::NotText),
            (b"\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01.", PlainError::LongInteger),
            (b"Nr\xff\xff\xff\xff.", PlainError::Stack),
            (b"N\x85a.", PlainError::Stack),
            (b"}(Nu.", PlainError::Stack),
            (b"h\x00.", PlainError::Stack),
        ] {
            assert_eq!(read_plain(pickle), Err(error), "{pickle:?}");
        }
        assert_eq!(read_plain(b"\x8a\x09\xff\xff\xff\xff\xff\xff\xff\xff\x00."), Ok(Value::Unsigned(u64::MAX)));
    }
}
