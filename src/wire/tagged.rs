//! Fields with a tag: the format of the data that one process hands over to another, which may be of another version.
//!
//! A message is a sequence of fields. Each field is a tag, a length, and that many bytes. A reader skips unknown tags, and a
//! missing field has its default. So a new field needs only one line in a list of `tagged!`, and the format stays the same. A tag
//! never changes its meaning: the tag of a removed field is not used again.
//!
//! A value of zero bytes is the default of its type; such fields are not written. The size of the message limits the memory that
//! reading takes: each length is checked against the bytes that are left, fields are nested only as deeply as their types, and the
//! content of skipped fields is not read.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::{Array, SmallVec};

use super::fields::{self, Damaged, Fields};
use crate::config::limits::LIST_VALUES_MAX;

/// A type of field. The default of the type is written as zero bytes.
pub trait Field: Sized {
    /// Appends it.
    fn write(&self, out: &mut Vec<u8>);

    /// Reads it.
    ///
    /// # Errors
    /// The bytes are not a value of this type.
    fn read(bytes: &[u8]) -> Result<Self, Damaged>;
}

/// Implements [`Field`] for a struct, as a message with a tag for each field.
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

/// Implements [`Field`] for an enum, with a number for each variant; the variant with number 0 is the default. An unknown number
/// cannot be skipped: it makes the message unreadable.
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
                    _ => Err($crate::wire::fields::Damaged("a number stands for no known variant")),
                }
            }
        }
    };
}
pub(crate) use numbered;

/// Appends a field, unless it has its default.
pub fn put(tag: u64, value: &impl Field, out: &mut Vec<u8>) {
    let start = out.len();
    fields::number(tag, out);
    if put_with_length(value, out) == 0 {
        out.truncate(start);
    }
}

/// Appends a length and the value. Returns the length.
fn put_with_length(value: &impl Field, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    // The length of most values fits into one byte. For a longer value its bytes are moved.
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

/// As few bytes as possible, the lowest first.
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

/// The number plus one; 0 is `None`.
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

/// A copy, which does not keep the buffer that it was read from.
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

/// The values in sequence, each with its length.
impl<T: Field> Field for Vec<T> {
    fn write(&self, out: &mut Vec<u8>) {
        for value in self {
            put_with_length(value, out);
        }
    }

    fn read(bytes: &[u8]) -> Result<Self, Damaged> {
        list(bytes)
    }
}

impl<A: Array<Item: Field>> Field for SmallVec<A> {
    fn write(&self, out: &mut Vec<u8>) {
        for value in self {
            put_with_length(value, out);
        }
    }

    fn read(bytes: &[u8]) -> Result<Self, Damaged> {
        list(bytes)
    }
}

const OUT_OF_RANGE: Damaged = Damaged("a number is out of range");

fn text(bytes: &[u8]) -> Result<&str, Damaged> {
    std::str::from_utf8(bytes).map_err(|_| Damaged("a text is not UTF-8"))
}

fn list<T: Field, L: Default + Extend<T>>(bytes: &[u8]) -> Result<L, Damaged> {
    let (mut fields, mut list) = (Fields(bytes), L::default());
    let mut count = 0;
    while !fields.0.is_empty() {
        count += 1;
        if count > LIST_VALUES_MAX {
            return Err(Damaged("a list is too long"));
        }
        list.extend([T::read(fields.bytes()?)?]);
    }
    Ok(list)
}
