//! Numbers and byte strings in sequence: the lowest layer of the data that one process hands over to the next.
//!
//! The data may come from another version of this program, or be damaged. So each length is checked against the bytes that are
//! left, and the only failure is [`Damaged`].

use std::fmt;

/// The data is damaged, or has another format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damaged(pub &'static str);

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// Appends a number: seven bits in each byte, the lowest bits first.
pub fn number(mut value: u64, out: &mut impl Extend<u8>) {
    while value > 0x7f {
        out.extend([value as u8 | 0x80]);
        value >>= 7;
    }
    out.extend([value as u8]);
}

/// Appends a length and the bytes.
pub fn bytes(value: &[u8], out: &mut Vec<u8>) {
    number(value.len() as u64, out);
    out.extend_from_slice(value);
}

/// Reads fields from the start of the bytes.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    /// A number.
    pub fn number(&mut self) -> Result<u64, Damaged> {
        let mut value = 0;
        for (place, byte) in self.0.iter().enumerate().take(10) {
            // Only one bit of the tenth byte fits into 64 bits.
            if place == 9 && *byte > 1 {
                break;
            }
            value |= u64::from(byte & 0x7f) << (7 * place);
            if byte & 0x80 == 0 {
                self.0 = &self.0[place + 1..];
                return Ok(value);
            }
        }
        Err(Damaged("a number has no end"))
    }

    /// A number that fits a smaller type.
    pub fn small<T: TryFrom<u64>>(&mut self) -> Result<T, Damaged> {
        T::try_from(self.number()?).map_err(|_| Damaged("a number is out of range"))
    }

    /// Bytes.
    pub fn bytes(&mut self) -> Result<&'a [u8], Damaged> {
        let length: usize = self.small()?;
        let (value, rest) =
            self.0.split_at_checked(length).ok_or(Damaged("a field is shorter than its length says"))?;
        self.0 = rest;
        Ok(value)
    }

    /// A tag, and the bytes of its field. `None`: no bytes are left.
    pub fn tagged(&mut self) -> Result<Option<(u64, &'a [u8])>, Damaged> {
        if self.0.is_empty() { Ok(None) } else { Ok(Some((self.number()?, self.bytes()?))) }
    }

    /// Text.
    pub fn text(&mut self) -> Result<&'a str, Damaged> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Damaged("a text is not UTF-8"))
    }

    /// Checks that no bytes are left.
    pub fn end(self) -> Result<(), Damaged> {
        if self.0.is_empty() { Ok(()) } else { Err(Damaged("bytes are left after the last field")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_fields_are_read_back_and_truncated_ones_are_refused() {
        let numbers = [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX];
        let mut out = Vec::new();
        numbers.iter().for_each(|value| number(*value, &mut out));
        bytes("äbc".as_bytes(), &mut out);
        let mut fields = Fields(&out);
        for value in numbers {
            assert_eq!(fields.number(), Ok(value));
        }
        assert_eq!(fields.text(), Ok("äbc"));
        assert_eq!(fields.end(), Ok(()));
        for cut in 0..out.len() {
            let mut fields = Fields(&out[..cut]);
            let all = (0..numbers.len()).try_for_each(|_| fields.number().map(drop)).and_then(|()| fields.bytes());
            assert!(all.is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn damaged_fields_are_errors() {
        assert!(Fields(&[0xff; 20]).number().is_err());
        assert!(Fields(&[0xff, 0xff, 0xff, 0xff, 0x0f, 1]).bytes().is_err());
        assert!(Fields(&[0x80, 0x02]).small::<u8>().is_err());
        assert!(Fields(&[1, 0xff]).text().is_err());
        assert!(Fields(&[0]).end().is_err());
    }
}
