//! A deserializer that goes on after an error, so that an operator sees all of them at once.
//!
//! It knows what each value ought to be, because serde asks for it. A value that is something
//! else is noted with its path, and a harmless one takes its place. What serde itself complains
//! about (a missing member) ends a run; the path is noted, filled in, and the document is read
//! again. The typed value that comes out is only used when nothing was noted.
//!
//! It is stricter than serde where serde is generous: a list is no struct, and a mapping is no
//! plain word. Messages never repeat a value, because it may be a secret.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;

use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess,
    SeqAccess, VariantAccess, Visitor,
};
use serde_json::{Map, Value};

use super::path::{Path, shown};
use crate::bounds;

/// Reads a value as a `T`, and says everything that is wrong with it.
pub(super) fn read<T: DeserializeOwned>(root: &str, value: &Value) -> Reading<T> {
    let notes = RefCell::new(Notes::default());
    let at = Path::Root(root);
    let typed = loop {
        let known = notes.borrow().size();
        let outcome = T::deserialize(Lenient { value: Some(value), at: &at, notes: &notes });
        let mut notes = notes.borrow_mut();
        match outcome {
            Ok(value) => break Some(value),
            Err(Failed { message: Some(message), .. }) => notes.complain(&at, message),
            Err(_) => {}
        }
        // Each run finds something new, else it would never end.
        if notes.size() == known || notes.complaints.len() >= bounds::FIELD_ERRORS_MAX {
            break None;
        }
    };
    let Notes { complaints, blanks } = notes.into_inner();
    Reading { typed, complaints, blanks }
}

/// What came of reading a value.
#[derive(Debug)]
pub(super) struct Reading<T> {
    /// With harmless values in place of bad ones.
    pub(super) typed: Option<T>,
    pub(super) complaints: Vec<Complaint>,
    /// Paths of the harmless values: what they look like says nothing about the document.
    pub(super) blanks: BTreeSet<String>,
}

impl<T> Reading<T> {
    /// The same with another view of the typed value.
    pub(super) fn map<U>(self, f: impl FnOnce(T) -> U) -> Reading<U> {
        let Self { typed, complaints, blanks } = self;
        Reading { typed: typed.map(f), complaints, blanks }
    }
}

/// A path and what is wrong there.
pub(super) type Complaint = (String, String);

#[derive(Debug, Default)]
struct Notes {
    complaints: Vec<Complaint>,
    /// Paths whose values are replaced by harmless ones.
    blanks: BTreeSet<String>,
}

impl Notes {
    fn size(&self) -> usize {
        self.complaints.len() + self.blanks.len()
    }

    /// Notes the first complaint about a path.
    fn complain(&mut self, at: &Path<'_>, message: String) {
        let path = at.to_string();
        if !self.complaints.iter().any(|(known, _)| *known == path) {
            self.complaints.push((path, message));
        }
    }
}

/// The end of a run. Without a message, its cause is in the notes already.
#[derive(Debug)]
struct Failed {
    message: Option<String>,
    missing: Option<&'static str>,
}

const NOTED: Failed = Failed { message: None, missing: None };

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.message.as_deref().unwrap_or("noted"))
    }
}
impl std::error::Error for Failed {}
impl serde::de::Error for Failed {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { message: Some(message.to_string()), missing: None }
    }
    fn missing_field(field: &'static str) -> Self {
        Self { message: None, missing: Some(field) }
    }
}

#[derive(Clone, Copy)]
struct Lenient<'a> {
    /// None: a harmless value is wanted.
    value: Option<&'a Value>,
    at: &'a Path<'a>,
    notes: &'a RefCell<Notes>,
}

static NULL: Value = Value::Null;

impl<'a> Lenient<'a> {
    fn complain(&self, message: impl Into<String>) {
        self.notes.borrow_mut().complain(self.at, message.into());
    }

    /// The value, unless its path was found bad in an earlier run.
    fn value(&self) -> Option<&'a Value> {
        let value = self.value?;
        let notes = self.notes.borrow();
        (notes.blanks.is_empty() || !notes.blanks.contains(&self.at.to_string())).then_some(value)
    }

    /// Turns serde's own complaint about the value at this path into a note.
    fn settle<T>(&self, outcome: Result<T, Failed>) -> Result<T, Failed> {
        let given = outcome.is_err() && self.value().is_some();
        outcome.map_err(|failed| {
            let mut notes = self.notes.borrow_mut();
            if let Some(field) = failed.missing {
                let at = Path::Key(self.at, field);
                notes.blanks.insert(at.to_string());
                if given {
                    notes.complain(&at, "is missing".to_owned());
                }
            } else if let Some(message) = failed.message {
                notes.blanks.insert(self.at.to_string());
                notes.complain(self.at, message);
            }
            NOTED
        })
    }

    fn text(&self, neutral: &'a str) -> &'a str {
        match self.value() {
            None => neutral,
            Some(Value::String(text)) => text,
            Some(other) => {
                let hint =
                    if other.is_number() || other.is_boolean() { "; put it in quotes" } else { "" };
                self.complain(format!("must be text, not {}{hint}", noun(other)));
                neutral
            }
        }
    }

    fn checked_text<T: std::str::FromStr<Err: fmt::Display>>(&self, neutral: &'a str) -> &'a str {
        let text = self.text(neutral);
        match text.parse::<T>() {
            Ok(_) => text,
            Err(error) => {
                self.complain(error.to_string());
                neutral
            }
        }
    }

    /// A whole number of a range, as the nearest signed width.
    fn number(&self, min: i128, max: i128) -> i128 {
        let neutral = 1;
        match self.value() {
            None => neutral,
            Some(Value::Number(n)) => {
                let whole = n.as_i64().map(i128::from).or_else(|| n.as_u64().map(i128::from));
                whole.filter(|n| (min..=max).contains(n)).unwrap_or_else(|| {
                    self.complain(format!("must be a whole number from {min} to {max}"));
                    neutral
                })
            }
            Some(other) => {
                self.complain(format!("must be a whole number, not {}", noun(other)));
                neutral
            }
        }
    }

    fn list(&self) -> &'a [Value] {
        match self.value() {
            Some(Value::Array(items)) => items,
            None => &[],
            Some(other) => {
                self.complain(format!("must be a list, not {}", noun(other)));
                &[]
            }
        }
    }

    fn mapping(&self) -> Option<&'a Map<String, Value>> {
        match self.value() {
            Some(Value::Object(map)) => Some(map),
            None => None,
            Some(other) => {
                self.complain(format!("must be a mapping, not {}", noun(other)));
                // Its members are not missing; it is.
                self.notes.borrow_mut().blanks.insert(self.at.to_string());
                None
            }
        }
    }
}

fn noun(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

macro_rules! whole_numbers {
    ($($method:ident $visit:ident $kind:ty;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
            let number = self.number(<$kind>::MIN.into(), <$kind>::MAX.into());
            let number = <$kind>::try_from(number).unwrap_or(1);
            self.settle(visitor.$visit(number))
        }
    )*};
}

impl<'de> Deserializer<'de> for Lenient<'_> {
    type Error = Failed;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        // Only where a document holds JSON of somebody else's.
        let value = self.value().unwrap_or(&NULL).clone();
        self.settle(
            value
                .into_deserializer()
                .deserialize_any(visitor)
                .map_err(|e: serde_json::Error| serde::de::Error::custom(e)),
        )
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        let word = match self.value() {
            Some(Value::Bool(word)) => *word,
            None => false,
            Some(other) => {
                self.complain(format!("must be true or false, not {}", noun(other)));
                false
            }
        };
        self.settle(visitor.visit_bool(word))
    }

    whole_numbers! {
        deserialize_i8 visit_i8 i8;
        deserialize_i16 visit_i16 i16;
        deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64;
        deserialize_u8 visit_u8 u8;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64;
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        let text = self.text("x");
        self.settle(visitor.visit_str(text))
    }
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        self.deserialize_str(visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Failed> {
        // Texts of our own alphabets, which `crate::id` asks for by these names.
        let text = match name {
            "Name" => self.checked_text::<crate::id::Name>("x"),
            "Digest" => self.checked_text::<crate::id::Digest>(ZEROS),
            _ => return visitor.visit_newtype_struct(self),
        };
        self.settle(visitor.visit_str(text))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        match self.value() {
            None | Some(Value::Null) => visitor.visit_none(),
            Some(_) => visitor.visit_some(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        let items = Items { of: self, items: self.list(), next: 0 };
        self.settle(visitor.visit_seq(items))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Failed> {
        let entries = self.mapping().into_iter().flatten();
        let members = entries.map(|(key, value)| (key.as_str(), Some(value))).collect();
        self.settle(visitor.visit_map(Members { of: self, members, next: 0 }))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failed> {
        let mut members = Vec::new();
        for (key, value) in self.mapping().into_iter().flatten() {
            if fields.contains(&key.as_str()) {
                members.push((key.as_str(), Some(value)));
            } else {
                let at = Path::Key(self.at, key);
                let message = format!("unknown field; known are: {}", fields.join(", "));
                self.notes.borrow_mut().complain(&at, message);
            }
        }
        for field in fields {
            let given = members.iter().any(|(key, _)| key == field);
            let path = Path::Key(self.at, field);
            let blank = || self.notes.borrow().blanks.contains(&path.to_string());
            if !given && blank() {
                members.push((field, None));
            }
        }
        self.settle(visitor.visit_map(Members { of: self, members, next: 0 }))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failed> {
        let choice = self.choice(variants);
        self.settle(visitor.visit_enum(choice))
    }

    serde::forward_to_deserialize_any! {
        i128 u128 f32 f64 char bytes byte_buf unit unit_struct tuple tuple_struct identifier
        ignored_any
    }
}

const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

impl<'a> Lenient<'a> {
    fn choice(self, variants: &'static [&'static str]) -> Choice<'a> {
        let neutral = Choice {
            of: self,
            variant: variants.first().copied().unwrap_or(""),
            content: None,
            given: false,
        };
        let known = || format!("must be one of: {}", variants.join(", "));
        match self.value() {
            None => neutral,
            Some(Value::String(word)) => match variants.iter().find(|v| *v == word) {
                Some(variant) => Choice { of: self, variant, content: None, given: true },
                None => {
                    self.complain(known());
                    neutral
                }
            },
            Some(Value::Object(map)) => match map.iter().next() {
                Some((key, content)) if map.len() == 1 => {
                    match variants.iter().find(|v| *v == key) {
                        Some(variant) => {
                            Choice { of: self, variant, content: Some(content), given: true }
                        }
                        None => {
                            let at = Path::Key(self.at, key);
                            self.notes.borrow_mut().complain(&at, known());
                            neutral
                        }
                    }
                }
                _ => {
                    self.complain(format!("must have exactly one of: {}", variants.join(", ")));
                    neutral
                }
            },
            Some(other) => {
                self.complain(format!("{}, not {}", known(), noun(other)));
                neutral
            }
        }
    }
}

struct Items<'a> {
    of: Lenient<'a>,
    items: &'a [Value],
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Failed;
    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Failed> {
        let Some(value) = self.items.get(self.next) else { return Ok(None) };
        let at = Path::Index(self.of.at, self.next);
        self.next += 1;
        seed.deserialize(Lenient { value: Some(value), at: &at, notes: self.of.notes }).map(Some)
    }
    fn size_hint(&self) -> Option<usize> {
        Some(self.items.len() - self.next)
    }
}

struct Members<'a> {
    of: Lenient<'a>,
    members: Vec<(&'a str, Option<&'a Value>)>,
    next: usize,
}

impl<'de> MapAccess<'de> for Members<'_> {
    type Error = Failed;
    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Failed> {
        let Some((key, _)) = self.members.get(self.next) else { return Ok(None) };
        seed.deserialize(key.into_deserializer()).map(Some)
    }
    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Failed> {
        let (key, value) = self.members.get(self.next).copied().unwrap_or(("", None));
        self.next += 1;
        let at = Path::Key(self.of.at, key);
        seed.deserialize(Lenient { value, at: &at, notes: self.of.notes })
    }
}

/// One variant of an enum; `given` is false when it stands in for a bad one.
struct Choice<'a> {
    of: Lenient<'a>,
    variant: &'static str,
    content: Option<&'a Value>,
    given: bool,
}

impl<'de> EnumAccess<'de> for Choice<'_> {
    type Error = Failed;
    type Variant = Self;
    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Failed> {
        Ok((seed.deserialize(self.variant.into_deserializer())?, self))
    }
}

impl<'de> VariantAccess<'de> for Choice<'_> {
    type Error = Failed;

    fn unit_variant(self) -> Result<(), Failed> {
        if self.content.is_some() {
            self.of.complain(format!("must be the plain word {}", shown(self.variant)));
        }
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Failed> {
        let at = Path::Key(self.of.at, self.variant);
        if self.content.is_none() && self.given {
            self.of.complain(format!("must be a mapping with the member {}", self.variant));
        }
        seed.deserialize(Lenient { value: self.content, at: &at, notes: self.of.notes })
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Failed> {
        Err(serde::de::Error::custom("is of a form that documents do not have"))
    }
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Failed> {
        let at = Path::Key(self.of.at, self.variant);
        Lenient { value: self.content, at: &at, notes: self.of.notes }
            .deserialize_struct("", fields, visitor)
    }
}
