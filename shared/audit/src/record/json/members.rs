//! What is within lists and objects.

use serde::ser::{self, Error as _, Serialize};
use serde_json::Error;

use super::{append, name};

/// A list or an object that is not complete yet.
pub(super) struct Members<'a> {
    pub(super) out: &'a mut Vec<u8>,
    pub(super) is_first: bool,
    pub(super) close: &'static [u8],
}

impl Members<'_> {
    #[inline]
    fn comma(&mut self) {
        if !std::mem::take(&mut self.is_first) {
            self.out.push(b',');
        }
    }
    #[inline]
    fn element(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), Error> {
        self.comma();
        append(self.out, value)
    }
    // Where the name is known, writing it takes no call.
    #[inline(always)]
    fn field(
        &mut self,
        field: &'static str,
        value: &(impl Serialize + ?Sized),
    ) -> Result<(), Error> {
        name(self.out, field, std::mem::take(&mut self.is_first));
        append(self.out, value)
    }
    #[inline]
    fn close(self) -> Result<(), Error> {
        self.out.extend_from_slice(self.close);
        Ok(())
    }
}

impl ser::SerializeMap for Members<'_> {
    type Ok = ();
    type Error = Error;
    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.comma();
        let begin = self.out.len();
        append(self.out, key)?;
        match self.out.get(begin) {
            Some(b'"') => {}
            // Numbers and booleans become texts.
            Some(b'-' | b'0'..=b'9' | b't' | b'f') => {
                self.out.insert(begin, b'"');
                self.out.push(b'"');
            }
            _ => return Err(Error::custom("key must be a string")),
        }
        self.out.push(b':');
        Ok(())
    }
    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        append(self.out, value)
    }
    fn end(self) -> Result<(), Error> {
        self.close()
    }
}

macro_rules! elements {
    ($($of:ident $method:ident,)*) => {$(
        impl ser::$of for Members<'_> {
            type Ok = ();
            type Error = Error;
            #[inline]
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
                self.element(value)
            }
            #[inline]
            fn end(self) -> Result<(), Error> {
                self.close()
            }
        }
    )*};
}
elements! {
    SerializeSeq serialize_element, SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field, SerializeTupleVariant serialize_field,
}

macro_rules! fields {
    ($($of:ident,)*) => {$(
        impl ser::$of for Members<'_> {
            type Ok = ();
            type Error = Error;
            #[inline(always)]
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                field: &'static str,
                value: &T,
            ) -> Result<(), Error> {
                self.field(field, value)
            }
            #[inline]
            fn end(self) -> Result<(), Error> {
                self.close()
            }
        }
    )*};
}
fields! { SerializeStruct, SerializeStructVariant, }
