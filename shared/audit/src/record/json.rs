//! Compact JSON into a `Vec<u8>`: byte for byte what `serde_json::to_vec` writes, in a fraction of
//! its work, because every call pays for it.
//!
//! The names of struct fields and variants are written as they are, texts are looked at sixteen
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

/// True for what JSON has behind a backslash only.
#[inline]
fn is_special(byte: u8) -> bool {
    (byte < 0x20) | (byte == b'"') | (byte == b'\\')
}

/// True when JSON has a text as it is.
#[inline]
fn is_plain(text: &[u8]) -> bool {
    /// Without a branch for each byte and of a known size, so that the compiler makes it a few
    /// instructions that work on all of them.
    #[inline]
    fn found<const N: usize>(bytes: &[u8; N]) -> bool {
        bytes.iter().fold(false, |found, &byte| found | is_special(byte))
    }
    // The end of a text overlaps what is before it instead of going byte by byte.
    if let Some(last) = text.last_chunk::<16>() {
        !(text.as_chunks::<16>().0.iter().any(found) || found(last))
    } else if let (Some(first), Some(last)) = (text.first_chunk::<8>(), text.last_chunk::<8>()) {
        !(found(first) || found(last))
    } else if let (Some(first), Some(last)) = (text.first_chunk::<4>(), text.last_chunk::<4>()) {
        !(found(first) || found(last))
    } else {
        !text.iter().any(|&byte| is_special(byte))
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
        name(self.0, variant, true);
        self
    }
    #[inline]
    fn digits(self, number: impl itoa::Integer) -> Result<(), Error> {
        self.0.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
        Ok(())
    }
}

/// Appends the name of a field or a variant and a colon, behind a comma but for the first. Such
/// names are those of Rust or what a `rename` in our own code says; none needs escapes.
#[inline(always)]
fn name(out: &mut Vec<u8>, name: &'static str, is_first: bool) {
    /// Of a name with all around it. Ours are shorter.
    const LEN_MAX: usize = 48;
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    debug_assert!(name.bytes().all(fits), "{name} may need escapes");
    let len = name.len();
    let from = usize::from(is_first);
    if len + 4 <= LEN_MAX {
        // At once, so that there is one look for room, not four. Where the name is known when this
        // is compiled, nothing is left to do but to copy it.
        let mut all = [0; LEN_MAX];
        all[..2].copy_from_slice(b",\"");
        all[2..len + 2].copy_from_slice(name.as_bytes());
        all[len + 2..len + 4].copy_from_slice(b"\":");
        out.extend_from_slice(&all[from..len + 4]);
    } else {
        out.extend_from_slice(&b",\""[from..]);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\":");
    }
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
