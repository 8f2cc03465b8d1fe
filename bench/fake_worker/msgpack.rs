//! As much msgpack as a fake worker needs: it steps over what it does not want and passes keys on as they came.

/// Reads values one after the other. `None` where the bytes are no msgpack, or of another type.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|bytes| bytes[0])
    }

    /// An unsigned big-endian number of so many bytes.
    fn number(&mut self, bytes: usize) -> Option<usize> {
        Some(self.take(bytes)?.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }

    pub(crate) fn array(&mut self) -> Option<usize> {
        match self.byte()? {
            marker @ 0x90..=0x9f => Some(usize::from(marker & 0x0f)),
            0xdc => self.number(2),
            0xdd => self.number(4),
            _ => None,
        }
    }

    pub(crate) fn map(&mut self) -> Option<usize> {
        match self.byte()? {
            marker @ 0x80..=0x8f => Some(usize::from(marker & 0x0f)),
            0xde => self.number(2),
            0xdf => self.number(4),
            _ => None,
        }
    }

    pub(crate) fn text(&mut self) -> Option<&'a [u8]> {
        let length = match self.byte()? {
            marker @ 0xa0..=0xbf => usize::from(marker & 0x1f),
            0xd9 => self.number(1)?,
            0xda => self.number(2)?,
            0xdb => self.number(4)?,
            _ => return None,
        };
        self.take(length)
    }

    /// A float, or an integer as a float.
    pub(crate) fn float(&mut self) -> Option<f64> {
        match self.0.first()? {
            0xcb => Some(f64::from_be_bytes(self.take(9)?[1..].try_into().ok()?)),
            marker @ 0x00..=0x7f => {
                self.take(1)?;
                Some(f64::from(*marker))
            }
            _ => None,
        }
    }

    /// The bytes of the next value, whatever it is.
    pub(crate) fn raw(&mut self) -> Option<&'a [u8]> {
        let start = self.0;
        let mut values = 1;
        while values > 0 {
            values += self.step()?;
            values -= 1;
        }
        Some(&start[..start.len() - self.0.len()])
    }

    /// Steps over a value, or over the head of a map or array: gives how many values follow in it.
    fn step(&mut self) -> Option<usize> {
        let (length, inside) = match self.byte()? {
            0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => (0, 0),
            marker @ 0x80..=0x8f => (0, 2 * usize::from(marker & 0x0f)),
            marker @ 0x90..=0x9f => (0, usize::from(marker & 0x0f)),
            marker @ 0xa0..=0xbf => (usize::from(marker & 0x1f), 0),
            0xc4 | 0xd9 => (self.number(1)?, 0),
            0xc5 | 0xda => (self.number(2)?, 0),
            0xc6 | 0xdb => (self.number(4)?, 0),
            0xc7 => (1 + self.number(1)?, 0),
            0xc8 => (1 + self.number(2)?, 0),
            0xc9 => (1 + self.number(4)?, 0),
            0xcc | 0xd0 => (1, 0),
            0xcd | 0xd1 | 0xd4 => (2, 0),
            0xd5 => (3, 0),
            0xca | 0xce | 0xd2 => (4, 0),
            0xd6 => (5, 0),
            0xcb | 0xcf | 0xd3 => (8, 0),
            0xd7 => (9, 0),
            0xd8 => (17, 0),
            0xdc => (0, self.number(2)?),
            0xdd => (0, self.number(4)?),
            0xde => (0, 2 * self.number(2)?),
            0xdf => (0, 2 * self.number(4)?),
            0xc1 => return None,
        };
        self.take(length)?;
        Some(inside)
    }
}

/// Appends values to a buffer.
pub(crate) trait Write {
    fn map(&mut self, length: u8);
    fn text(&mut self, text: &str);
    fn float(&mut self, float: f64);
    fn unsigned(&mut self, number: u64);
}

impl Write for Vec<u8> {
    fn map(&mut self, length: u8) {
        self.extend_from_slice(&[0xde, 0, length]);
    }

    fn text(&mut self, text: &str) {
        if text.len() < 32 {
            self.push(0xa0 | text.len() as u8);
        } else {
            self.push(0xdb);
            self.extend_from_slice(&(text.len() as u32).to_be_bytes());
        }
        self.extend_from_slice(text.as_bytes());
    }

    fn float(&mut self, float: f64) {
        self.push(0xcb);
        self.extend_from_slice(&float.to_be_bytes());
    }

    fn unsigned(&mut self, number: u64) {
        self.push(0xcf);
        self.extend_from_slice(&number.to_be_bytes());
    }
}
