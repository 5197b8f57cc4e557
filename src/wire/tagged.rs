//! Fields with a tag: how one process writes down what another goes on with, whose version may be another.
//!
//! A message is a row of fields, each a tag, a length, and that many bytes. A reader skips tags that it does not know, and a field that
//! is missing has its default; so a field is added by one line in a list of `tagged!`, and the format stays the same. A tag means
//! the same for ever: that of a field that is gone is not used again.
//!
//! A value whose bytes are none is its type's default, and such fields are not written. Nothing is nested deeper than its types are, no
//! length is believed beyond the bytes that are there, and what is skipped is not looked at: memory is bounded by the message.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::{Array, SmallVec};

use super::fields::{self, Damaged, Fields};
use crate::config::limits::LIST_VALUES_MAX;

/// What can stand in a field. The default of the type is written as no bytes at all.
pub trait Field: Sized {
    /// Appends it.
    fn write(&self, out: &mut Vec<u8>);

    /// Reads it.
    ///
    /// # Errors
    /// It is something else.
    fn read(bytes: &[u8]) -> Result<Self, Damaged>;
}

/// Makes a struct a message, given the tag of each of its fields.
macro_rules! tagged {
    ($type:ident { $($tag:literal $field:ident),+ $(,)? }) => {
        impl $crate::wire::tagged::Field for $type {
            fn write(&self, out: &mut Vec<u8>) {
                let $type { $($field),+ } = self;
                $( $crate::wire::tagged::put($tag, $field, out); )+
            }

            fn read(bytes: &[u8]) -> Result<Self, $crate::wire::fields::Damaged> {
                let mut read = <$type>::default();
                let mut fields = $crate::wire::fields::Fields(bytes);
                while let Some(field) = fields.tagged()? {
                    match field {
                        $( ($tag, value) => read.$field = $crate::wire::tagged::Field::read(value)?, )+
                        _ => {}
                    }
                }
                Ok(read)
            }
        }
    };
}
pub(crate) use tagged;

/// Makes an enum a field, given the number of each of its variants; the one with number 0 is the default. One that is not known cannot be
/// skipped: then the message cannot be read.
macro_rules! numbered {
    ($type:ident { $($number:literal $variant:ident),+ $(,)? }) => {
        impl $crate::wire::tagged::Field for $type {
            fn write(&self, out: &mut Vec<u8>) {
                let number: u64 = match self { $( $type::$variant => $number, )+ };
                number.write(out);
            }

            fn read(bytes: &[u8]) -> Result<Self, $crate::wire::fields::Damaged> {
                match u64::read(bytes)? {
                    $( $number => Ok($type::$variant), )+
                    _ => Err($crate::wire::fields::Damaged("a choice that is none")),
                }
            }
        }
    };
}
pub(crate) use numbered;

/// Appends a field, if it is not what a missing one is.
pub fn put(tag: u64, value: &impl Field, out: &mut Vec<u8>) {
    let start = out.len();
    fields::number(tag, out);
    if behind_length(value, out) == 0 {
        out.truncate(start);
    }
}

/// Appends a value behind its length, which is returned.
fn behind_length(value: &impl Field, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    // Most values are short: one byte holds their length. Else what was written is moved behind a longer one.
    out.push(0);
    value.write(out);
    let length = out.len() - start - 1;
    if length <= 0x7f {
        out[start] = length as u8;
    } else {
        let mut number = SmallVec::<[u8; 10]>::new();
        fields::number(length as u64, &mut number);
        out.splice(start..=start, number);
    }
    length
}

/// As few bytes as it takes, the low ones first.
impl Field for u64 {
    fn write(&self, out: &mut Vec<u8>) {
        let length = 8 - self.leading_zeros() as usize / 8;
        out.extend_from_slice(&self.to_le_bytes()[..length]);
    }

    fn read(bytes: &[u8]) -> Result<Self, Damaged> {
        let mut all = [0; 8];
        all.get_mut(..bytes.len()).ok_or(OUT_OF_RANGE)?.copy_from_slice(bytes);
        Ok(u64::from_le_bytes(all))
    }
}

impl Field for u32 {
    fn write(&self, out: &mut Vec<u8>) {
        u64::from(*self).write(out);
    }

    fn read(bytes: &[u8]) -> Result<Self, Damaged> {
        u64::read(bytes)?.try_into().map_err(|_| OUT_OF_RANGE)
    }
}

impl Field for bool {
    fn write(&self, out: &mut Vec<u8>) {
        u64::from(*self).write(out);
    }

    fn read(bytes: &[u8]) -> Result<Self, Damaged> {
        Ok(u64::read(bytes)? != 0)
    }
}

/// One more, so that 0 is none.
impl Field for Option<u32> {
    fn write(&self, out: &mut Vec<u8>) {
        self.map_or(0, |number| u64::from(number) + 1).write(out);
    }

    fn read(bytes: &[u8]) -> Result<Self, Damaged> {
        u64::read(bytes)?.checked_sub(1).map(u32::try_from).transpose().map_err(|_| OUT_OF_RANGE)
    }
}

impl Field for Vec<u8> {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn read(bytes: &[u8]) -> Result<Self, Damaged> {
        Ok(bytes.to_vec())
    }
}

/// A copy: it holds nothing of what it was read from.
impl Field for Bytes {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    fn read(bytes: &[u8]) -> Result<Self, Damaged> {
        Ok(Bytes::copy_from_slice(bytes))
    }
}

impl Field for String {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    fn read(bytes: &[u8]) -> Result<Self, Damaged> {
        Ok(text(bytes)?.to_owned())
    }
}

impl Field for Arc<str> {
    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
    }

    fn read(bytes: &[u8]) -> Result<Self, Damaged> {
        Ok(text(bytes)?.into())
    }
}

/// Values one behind the other, each behind its length.
impl<T: Field> Field for Vec<T> {
    fn write(&self, out: &mut Vec<u8>) {
        for value in self {
            behind_length(value, out);
        }
    }

    fn read(bytes: &[u8]) -> Result<Self, Damaged> {
        list(bytes)
    }
}

impl<A: Array<Item: Field>> Field for SmallVec<A> {
    fn write(&self, out: &mut Vec<u8>) {
        for value in self {
            behind_length(value, out);
        }
    }

    fn read(bytes: &[u8]) -> Result<Self, Damaged> {
        list(bytes)
    }
}

const OUT_OF_RANGE: Damaged = Damaged("a number out of range");

fn text(bytes: &[u8]) -> Result<&str, Damaged> {
    std::str::from_utf8(bytes).map_err(|_| Damaged("text that is no text"))
}

fn list<T: Field, L: Default + Extend<T>>(bytes: &[u8]) -> Result<L, Damaged> {
    let (mut fields, mut list) = (Fields(bytes), L::default());
    let mut count = 0;
    while !fields.0.is_empty() {
        count += 1;
        if count > LIST_VALUES_MAX {
            return Err(Damaged("a list that is too long"));
        }
        list.extend([T::read(fields.bytes()?)?]);
    }
    Ok(list)
}
