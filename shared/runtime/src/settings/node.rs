//! Settings before they are typed: file values, and texts from the environment that become what
//! the field asks for.

use serde::de::value::{MapDeserializer, SeqDeserializer, StringDeserializer};
use serde::de::{Deserializer, IntoDeserializer, Visitor};
use serde_json::Value;

type Error = serde_json::Error;

/// A section, a value of the file or a text of the environment.
#[derive(Debug, Clone)]
pub(super) enum Node {
    Map(Vec<(String, Node)>),
    File(Value),
    Env(String),
}

impl From<Value> for Node {
    fn from(value: Value) -> Self {
        match value {
            Value::Object(map) => {
                Self::Map(map.into_iter().map(|(key, value)| (key, Self::from(value))).collect())
            }
            other => Self::File(other),
        }
    }
}

impl Node {
    /// Sets a text at a path; the error is the dotted path of a value that is in the way.
    pub(super) fn set(&mut self, keys: &[String], text: String) -> Result<(), String> {
        let mut node = self;
        for (depth, key) in keys.iter().enumerate() {
            if matches!(node, Self::File(Value::Null)) {
                *node = Self::Map(Vec::new());
            }
            let Self::Map(entries) = node else { return Err(keys[..depth].join(".")) };
            let at = entries.iter().position(|(name, _)| name == key).unwrap_or_else(|| {
                entries.push((key.clone(), Self::Map(Vec::new())));
                entries.len() - 1
            });
            node = &mut entries[at].1;
        }
        *node = Self::Env(text);
        Ok(())
    }
}

/// JSON when the text looks like it, for lists and sections.
fn as_json(text: &str, open: char) -> Option<Value> {
    text.trim_start().starts_with(open).then(|| serde_json::from_str(text).ok()).flatten()
}

impl<'de> IntoDeserializer<'de, Error> for Node {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

macro_rules! parsed {
    ($($method:ident $visit:ident $type:ty, $what:literal;)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self {
                Self::Env(text) => match text.trim().parse::<$type>() {
                    Ok(value) => visitor.$visit(value),
                    Err(_) => Err(serde::de::Error::custom(concat!("expected ", $what))),
                },
                other => other.deserialize_any(visitor),
            }
        })*
    };
}

impl<'de> Deserializer<'de> for Node {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Self::Map(entries) => visitor.visit_map(MapDeserializer::new(entries.into_iter())),
            Self::File(value) => value.deserialize_any(visitor),
            Self::Env(text) => visitor.visit_string(text),
        }
    }

    parsed! {
        deserialize_bool visit_bool bool, "true or false";
        deserialize_i8 visit_i8 i8, "a whole number";
        deserialize_i16 visit_i16 i16, "a whole number";
        deserialize_i32 visit_i32 i32, "a whole number";
        deserialize_i64 visit_i64 i64, "a whole number";
        deserialize_u8 visit_u8 u8, "a whole number, not negative";
        deserialize_u16 visit_u16 u16, "a whole number, not negative";
        deserialize_u32 visit_u32 u32, "a whole number, not negative";
        deserialize_u64 visit_u64 u64, "a whole number, not negative";
        deserialize_f32 visit_f32 f32, "a number";
        deserialize_f64 visit_f64 f64, "a number";
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Self::File(Value::Null) => visitor.visit_none(),
            Self::Env(text) if text.is_empty() => visitor.visit_none(),
            other => visitor.visit_some(other),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Self::Env(text) = self else { return self.deserialize_any(visitor) };
        if let Some(value) = as_json(&text, '[') {
            return value.deserialize_any(visitor);
        }
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        visitor.visit_seq(SeqDeserializer::new(items.map(|item| Self::Env(item.to_owned()))))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Self::Env(text) => match as_json(&text, '{') {
                Some(value) => Self::from(value).deserialize_any(visitor),
                None => Err(serde::de::Error::custom("expected a section, as JSON")),
            },
            other => other.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_map(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self {
            Self::Env(text) => {
                let text: StringDeserializer<Error> = text.into_deserializer();
                text.deserialize_enum(name, variants, visitor)
            }
            Self::File(value) => value.deserialize_enum(name, variants, visitor),
            Self::Map(entries) => {
                let access = serde::de::value::MapAccessDeserializer::new(MapDeserializer::new(
                    entries.into_iter(),
                ));
                access.deserialize_enum(name, variants, visitor)
            }
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char str string bytes byte_buf unit unit_struct tuple tuple_struct
        identifier ignored_any
    }
}
