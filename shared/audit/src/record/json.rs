//! Compact JSON into a `Vec<u8>`: byte for byte what `serde_json::to_vec` writes, in a fraction of
//! its work, because every call pays for it.
//!
//! The names of struct fields and variants are written as they are, texts are looked at eight
//! bytes at a time, and only those with something to escape go byte by byte. Floats, which no
//! record has but in what it keeps of arguments and results, are left to `serde_json`.
//!
//! What `serde_json` refuses is refused here: keys of maps that are neither texts, numbers nor
//! booleans. The one form of its own that has no meaning here is a `RawValue`; no record holds any,
//! and a debug build panics at its field's name.

mod members;

use std::fmt;

use serde::ser::{self, Error as _, Serialize};
use serde_json::Error;

use members::Members;

/// Appends `value` to `out`.
///
/// # Errors
/// For a map with a key that JSON cannot have, and what a `Serialize` of `value` itself says.
#[inline]
pub(super) fn append(out: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) -> Result<(), Error> {
    value.serialize(Writer(out))
}

/// Appends what stands between the quotes of a text.
#[inline]
pub(super) fn append_escaped(out: &mut Vec<u8>, text: &str) {
    let bytes = text.as_bytes();
    match is_plain(bytes) {
        true => out.extend_from_slice(bytes),
        false => escape(out, bytes),
    }
}

/// A byte in every byte of a word.
const fn all(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// The top bit of some byte is set if and only if one of the eight is `"`, `\` or below 0x20.
///
/// `(word - all(n)) & !word` has it for bytes below `n` (up to 0x80); what a borrow adds above
/// such a byte changes nothing, for there is no borrow without one.
#[inline]
fn special(word: u64) -> u64 {
    let below = |word: u64, n: u8| word.wrapping_sub(all(n)) & !word;
    let is = |byte: u8| below(word ^ all(byte), 1);
    (below(word, 0x20) | is(b'"') | is(b'\\')) & all(0x80)
}

/// True when JSON has it as it is.
#[inline]
fn is_plain(text: &[u8]) -> bool {
    // The end of a text overlaps what is before it instead of going byte by byte.
    if let Some(last) = text.last_chunk() {
        let (words, _) = text.as_chunks();
        let word = |bytes: &[u8; 8]| special(u64::from_le_bytes(*bytes));
        words.iter().fold(word(last), |found, bytes| found | word(bytes)) == 0
    } else if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) {
        let half = |bytes: &[u8; 4]| u64::from(u32::from_le_bytes(*bytes));
        special(half(first) << 32 | half(last)) == 0
    } else {
        text.iter().all(|byte| !matches!(byte, b'"' | b'\\' | ..0x20))
    }
}

#[cold]
fn escape(out: &mut Vec<u8>, text: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut done = 0;
    for (at, &byte) in text.iter().enumerate() {
        let letter = match byte {
            b'"' | b'\\' => byte,
            0x08 => b'b',
            b'\t' => b't',
            b'\n' => b'n',
            0x0c => b'f',
            b'\r' => b'r',
            ..0x20 => b'u',
            _ => continue,
        };
        out.extend_from_slice(&text[done..at]);
        out.extend_from_slice(&[b'\\', letter]);
        if letter == b'u' {
            let [high, low] = [byte >> 4, byte & 15].map(|digit| DIGITS[usize::from(digit)]);
            out.extend_from_slice(&[b'0', b'0', high, low]);
        }
        done = at + 1;
    }
    out.extend_from_slice(&text[done..]);
}

/// Writes one value.
struct Writer<'a>(&'a mut Vec<u8>);

impl<'a> Writer<'a> {
    /// Begins a list or an object that ends with `close`.
    #[inline]
    fn open(self, open: u8, close: &'static [u8]) -> Result<Members<'a>, Error> {
        self.0.push(open);
        Ok(Members { out: self.0, is_first: true, close })
    }
    /// Begins `{"variant":`.
    #[inline]
    fn variant(self, variant: &'static str) -> Self {
        self.0.push(b'{');
        name(self.0, variant);
        self
    }
    #[inline]
    fn digits(self, number: impl itoa::Integer) -> Result<(), Error> {
        self.0.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        Ok(())
    }
}

/// Appends the name of a field or a variant and a colon. Such names are those of Rust or what a
/// `rename` in our own code says; none needs escapes.
#[inline]
fn name(out: &mut Vec<u8>, name: &'static str) {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    debug_assert!(name.bytes().all(fits), "{name} may need escapes");
    out.push(b'"');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
}

macro_rules! integers {
    ($($method:ident: $of:ty,)*) => {$(
        #[inline]
        fn $method(self, value: $of) -> Result<(), Error> {
            self.digits(value)
        }
    )*};
}

impl<'a> ser::Serializer for Writer<'a> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Members<'a>;
    type SerializeTuple = Members<'a>;
    type SerializeTupleStruct = Members<'a>;
    type SerializeTupleVariant = Members<'a>;
    type SerializeMap = Members<'a>;
    type SerializeStruct = Members<'a>;
    type SerializeStructVariant = Members<'a>;

    integers! {
        serialize_i8: i8, serialize_i16: i16, serialize_i32: i32, serialize_i64: i64,
        serialize_i128: i128, serialize_u8: u8, serialize_u16: u16, serialize_u32: u32,
        serialize_u64: u64, serialize_u128: u128,
    }
    fn serialize_f32(self, value: f32) -> Result<(), Error> {
        serde_json::to_writer(self.0, &value)
    }
    fn serialize_f64(self, value: f64) -> Result<(), Error> {
        serde_json::to_writer(self.0, &value)
    }
    #[inline]
    fn serialize_bool(self, value: bool) -> Result<(), Error> {
        self.0.extend_from_slice(if value { b"true" } else { b"false" });
        Ok(())
    }
    fn serialize_char(self, value: char) -> Result<(), Error> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }
    #[inline]
    fn serialize_str(self, value: &str) -> Result<(), Error> {
        self.0.push(b'"');
        append_escaped(self.0, value);
        self.0.push(b'"');
        Ok(())
    }
    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Result<(), Error> {
        struct Escaped<'a>(&'a mut Vec<u8>);
        impl fmt::Write for Escaped<'_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                append_escaped(self.0, text);
                Ok(())
            }
        }
        self.0.push(b'"');
        fmt::write(&mut Escaped(self.0), format_args!("{value}")).map_err(Error::custom)?;
        self.0.push(b'"');
        Ok(())
    }
    fn serialize_bytes(self, value: &[u8]) -> Result<(), Error> {
        self.collect_seq(value)
    }
    #[inline]
    fn serialize_none(self) -> Result<(), Error> {
        self.serialize_unit()
    }
    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }
    fn serialize_unit(self) -> Result<(), Error> {
        self.0.extend_from_slice(b"null");
        Ok(())
    }
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        self.serialize_unit()
    }
    #[inline]
    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), Error> {
        self.serialize_str(variant)
    }
    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        value.serialize(self)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        let out = self.variant(variant).0;
        append(out, value)?;
        out.push(b'}');
        Ok(())
    }
    #[inline]
    fn serialize_seq(self, _: Option<usize>) -> Result<Members<'a>, Error> {
        self.open(b'[', b"]")
    }
    #[inline]
    fn serialize_tuple(self, _: usize) -> Result<Members<'a>, Error> {
        self.open(b'[', b"]")
    }
    #[inline]
    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Members<'a>, Error> {
        self.open(b'[', b"]")
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Members<'a>, Error> {
        self.variant(variant).open(b'[', b"]}")
    }
    #[inline]
    fn serialize_map(self, _: Option<usize>) -> Result<Members<'a>, Error> {
        self.open(b'{', b"}")
    }
    #[inline]
    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Members<'a>, Error> {
        self.open(b'{', b"}")
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Members<'a>, Error> {
        self.variant(variant).open(b'{', b"}}")
    }
}

#[cfg(test)]
mod tests;
