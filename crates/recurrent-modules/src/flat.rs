//! Configs that contain the fields of another config, saved as one flat JSON object.
//!
//! Burn's `Config` derive cannot flatten a field. `#[serde(flatten)]` can, but it buffers all values
//! before it reads any. An invalid value is then reported at the end of the object, without its field and
//! line, and numbers cannot be read at all if a crate of the program enables `arbitrary_precision` of
//! serde_json. Here each value is deserialised directly into its field.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::marker::PhantomData;

use burn::serde::de::{Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use burn::serde::ser::{SerializeMap, Serializer};
use burn::serde::{Deserialize, forward_to_deserialize_any};

/// A config whose fields are read and written one by one. [`flat_fields`] implements it.
pub(crate) trait FlatFields: Sized {
    /// Reads the value of the field `key` and returns the field's name; `None` if there is no such
    /// field.
    fn read_field<'de, M: MapAccess<'de>>(
        &mut self,
        key: &str,
        map: &mut M,
    ) -> Result<Option<&'static str>, M::Error>;

    /// Sets the fields that a file does not contain: an `Option` to `None`.
    ///
    /// # Errors
    /// If a missing field is not an `Option`.
    fn fill_missing<E: Error>(&mut self, seen: &[&str]) -> Result<(), E>;

    /// Writes all fields.
    fn write_fields<M: SerializeMap>(&self, map: &mut M) -> Result<(), M::Error>;
}

/// Reads a config from a map.
///
/// # Arguments
/// * `name` - name of the config, for errors
/// * `start` - a config of any values: each field is replaced
pub(crate) fn read<'de, C: FlatFields, D: Deserializer<'de>>(
    deserializer: D,
    name: &'static str,
    start: C,
) -> Result<C, D::Error> {
    deserializer.deserialize_map(ReadFields { name, start })
}

/// Writes a config as a map.
pub(crate) fn write<C: FlatFields, S: Serializer>(
    serializer: S,
    config: &C,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    config.write_fields(&mut map)?;
    map.end()
}

/// The value of a field that a file does not contain, by serde's rule for derived types.
pub(crate) fn missing<'de, T: Deserialize<'de>, E: Error>(field: &'static str) -> Result<T, E> {
    T::deserialize(Missing(field, PhantomData))
}

struct ReadFields<C> {
    name: &'static str,
    start: C,
}

impl<'de, C: FlatFields> Visitor<'de> for ReadFields<C> {
    type Value = C;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the fields of {}", self.name)
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<C, M::Error> {
        let mut config = self.start;
        let mut seen: Vec<&'static str> = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            match config.read_field(&key, &mut map)? {
                Some(field) if seen.contains(&field) => return Err(Error::duplicate_field(field)),
                Some(field) => seen.push(field),
                // A field of a later version.
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        config.fill_missing(&seen)?;
        Ok(config)
    }
}

/// A missing field: an `Option` reads `None` from it, every other type an error.
struct Missing<E>(&'static str, PhantomData<E>);

impl<'de, E: Error> Deserializer<'de> for Missing<E> {
    type Error = E;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, E> {
        Err(Error::missing_field(self.0))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, E> {
        visitor.visit_none()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// Implements [`FlatFields`] for a config: `flat_fields!(Name { a, b })`, or
/// `flat_fields!(Name: base { a, b })` where the field `base` is a config whose fields are flattened.
/// It does not compile unless all fields are listed.
macro_rules! flat_fields {
    ($Config:ident $(: $base:ident)? { $($field:ident),* $(,)? }) => {
        impl $crate::flat::FlatFields for $Config {
            fn read_field<'de, M: burn::serde::de::MapAccess<'de>>(
                &mut self,
                key: &str,
                map: &mut M,
            ) -> Result<Option<&'static str>, M::Error> {
                $(if key == stringify!($field) {
                    self.$field = map.next_value()?;
                    return Ok(Some(stringify!($field)));
                })*
                $(if let Some(field) = self.$base.read_field(key, map)? {
                    return Ok(Some(field));
                })?
                Ok(None)
            }

            fn fill_missing<E: burn::serde::de::Error>(&mut self, seen: &[&str]) -> Result<(), E> {
                $(self.$base.fill_missing(seen)?;)?
                $(if !seen.contains(&stringify!($field)) {
                    self.$field = $crate::flat::missing(stringify!($field))?;
                })*
                Ok(())
            }

            fn write_fields<M: burn::serde::ser::SerializeMap>(
                &self,
                map: &mut M,
            ) -> Result<(), M::Error> {
                let Self { $($base,)? $($field),* } = self;
                $($base.write_fields(map)?;)?
                $(map.serialize_entry(stringify!($field), $field)?;)*
                Ok(())
            }
        }
    };
}
pub(crate) use flat_fields;

/// The equivalent of Burn's `#[derive(Config)]` for a config that contains another one and adds fields.
/// Generates the struct, `new(d_input, d_hidden)`, a setter for each added field with the field's doc
/// comment, JSON, and [`Deref`](core::ops::Deref) to the contained config, so that its fields can be
/// read and set directly.
///
/// ```text
/// pub struct Name: base: Base {
///     /// Doc comment.
///     pub field: Type = default => with_field,
/// }
/// ```
macro_rules! flat_config {
    (
        $(#[$meta:meta])*
        pub struct $Config:ident: $base:ident: $Base:ident {
            $($(#[doc = $doc:expr])* pub $field:ident: $type:ty = $default:expr => $with:ident,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $Config {
            /// Fields shared with other configs. They are read and set as if they were fields of
            /// this struct, and are on the same level in JSON.
            pub $base: $Base,
            $($(#[doc = $doc])* pub $field: $type,)*
        }

        impl $Config {
            /// All other fields have their defaults.
            ///
            /// # Arguments
            /// * `d_input` - features of one input step
            /// * `d_hidden` - units of each layer
            pub fn new(d_input: usize, d_hidden: usize) -> Self {
                Self {
                    $base: $Base::new(d_input, d_hidden),
                    $($field: $default,)*
                }
            }

            $(
                #[doc = concat!("Sets the field [`", stringify!($field), "`](Self::", stringify!($field), ").")]
                #[doc = ""]
                $(#[doc = $doc])*
                #[doc = concat!("- Defaults to `", stringify!($default), "`")]
                pub fn $with(mut self, $field: $type) -> Self {
                    self.$field = $field;
                    self
                }
            )*
        }

        $crate::flat::flat_fields!($Config: $base { $($field),* });

        impl core::ops::Deref for $Config {
            type Target = $Base;

            fn deref(&self) -> &$Base {
                &self.$base
            }
        }

        impl core::ops::DerefMut for $Config {
            fn deref_mut(&mut self) -> &mut $Base {
                &mut self.$base
            }
        }

        impl burn::serde::Serialize for $Config {
            fn serialize<S: burn::serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $crate::flat::write(serializer, self)
            }
        }

        impl<'de> burn::serde::Deserialize<'de> for $Config {
            fn deserialize<D: burn::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                $crate::flat::read(deserializer, stringify!($Config), Self::new(0, 0))
            }
        }

        impl burn::config::Config for $Config {}

        /// JSON.
        impl core::fmt::Display for $Config {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(&burn::config::config_to_json(self))
            }
        }
    };
}
pub(crate) use flat_config;
