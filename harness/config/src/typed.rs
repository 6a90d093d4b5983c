//! From a checked tree to a typed struct, through serde.

use serde::de::value::{MapDeserializer, SeqDeserializer, StrDeserializer};
use serde::de::{DeserializeOwned, Deserializer, IntoDeserializer, Unexpected, Visitor};
use serde::forward_to_deserialize_any;

use super::faults::Faults;
use super::tree::{Node, Value};

/// serde's own error; a checked tree causes none, so its message is rarely seen.
pub(super) type Error = serde::de::value::Error;

/// Reads `T` from `node`.
pub(super) fn read<T: DeserializeOwned>(node: &Node) -> Result<T, Error> {
    T::deserialize(node)
}

/// Reads `T` from a tree that has been checked. An error is reported only if there is no fault that explains it.
pub(super) fn read_checked<T: DeserializeOwned>(node: &Node, faults: &mut Faults) -> Option<T> {
    let read = read(node);
    if let (Err(error), true) = (&read, faults.is_empty()) {
        faults.add(&node.at, error.to_string());
    }
    read.ok()
}

impl<'de> IntoDeserializer<'de, Error> for &'de Node {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for &'de Node {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Integer(value) => match (u64::try_from(*value), i64::try_from(*value)) {
                (Ok(value), _) => visitor.visit_u64(value),
                (_, Ok(value)) => visitor.visit_i64(value),
                _ => visitor.visit_i128(*value),
            },
            Value::Float(value) => visitor.visit_f64(*value),
            Value::Text(value) => visitor.visit_borrowed_str(value),
            Value::List(items) => visitor.visit_seq(SeqDeserializer::new(items.iter())),
            Value::Map(entries) => visitor.visit_map(MapDeserializer::new(
                entries.iter().map(|entry| (entry.key.as_str(), &entry.value)),
            )),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    /// An enum is the name of a variant, or a mapping from the name of one to its contents.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match &self.value {
            Value::Text(name) => {
                let name: StrDeserializer<'_, Error> = name.as_str().into_deserializer();
                visitor.visit_enum(name)
            }
            Value::Map(entries) if entries.len() == 1 => {
                visitor.visit_enum(serde::de::value::MapAccessDeserializer::new(MapDeserializer::new(
                    entries.iter().map(|entry| (entry.key.as_str(), &entry.value)),
                )))
            }
            _ => Err(serde::de::Error::invalid_type(
                Unexpected::Other("neither a name nor a mapping of one"),
                &visitor,
            )),
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map struct identifier ignored_any
    }
}
