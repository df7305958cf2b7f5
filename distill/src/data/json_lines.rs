//! One JSON object a line.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

use serde::de::{self, DeserializeSeed, IgnoredAny, MapAccess, Visitor};

use super::error::{Fault, excerpt};
use super::layout::{Layout, format_error};
use super::lines::{self, Lines};
use super::rows::{Cell, OnRow, Progress, ReadStats};
use super::{DataError, Format};

/// The columns are the keys of the first object.
pub(super) fn layout(path: &Path, first_line: &str) -> Result<Layout, DataError> {
    match serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(first_line) {
        Ok(object) => {
            let keys = object.keys().cloned().collect();
            Ok(Layout::new(Format::JsonLines, keys))
        }
        Err(e) => Err(format_error(
            path,
            "a JSON object in the first line",
            format!("{} ({e})", excerpt(first_line)),
            "write one object a line, or name another format",
        )),
    }
}

/// Reads the objects; a key that is not in a line is a missing cell.
pub(super) fn read(
    path: &Path,
    layout: &Layout,
    wanted: &[usize],
    progress: &Progress<'_>,
    on_row: &mut OnRow<'_>,
) -> Result<ReadStats, DataError> {
    let keys: Vec<&str> = wanted.iter().map(|&c| layout.columns[c].as_str()).collect();
    let mut source = Lines::open(path, progress)?;
    let mut stats = ReadStats::default();
    while let Some((number, line)) = source.next_line()? {
        stats.rows += 1;
        match values(line, &keys) {
            Ok(values) => {
                let cells: Vec<Cell<'_>> = values.iter().map(JsonCell::as_cell).collect();
                on_row(number, Ok(&cells))?;
            }
            Err(fault) => on_row(number, Err(fault))?,
        }
    }
    Ok(stats)
}

fn values<'l>(line: &'l [u8], keys: &[&str]) -> Result<Vec<JsonCell<'l>>, Fault> {
    let text = match std::str::from_utf8(line) {
        Ok(text) => text,
        Err(e) => return Err(lines::not_utf8(line, e.valid_up_to())),
    };
    let mut source = serde_json::Deserializer::from_str(text);
    Object { keys }
        .deserialize(&mut source)
        .and_then(|values| source.end().map(|()| values))
        .map_err(|e| {
            let what = e.to_string();
            // The line number of a one-line text says nothing.
            let what = what.split(" at line ").next().unwrap_or_default();
            Fault::new("a JSON object", format!("{} ({what})", excerpt(text)))
        })
}

/// A value of an object, kept as long as the line.
enum JsonCell<'l> {
    Missing,
    Text(Cow<'l, str>),
    Integer(i64),
    Large(u64),
    Float(f64),
    /// A list of texts.
    List(Vec<Cow<'l, str>>),
    Other(&'static str),
}

impl JsonCell<'_> {
    fn as_cell(&self) -> Cell<'_> {
        match self {
            Self::Missing => Cell::Missing,
            Self::Text(text) => Cell::Text(text),
            Self::Integer(number) => Cell::Integer(*number),
            Self::Large(number) => Cell::Large(*number),
            Self::Float(number) => Cell::Float(*number),
            Self::List(texts) => Cell::List(texts.iter().map(AsRef::as_ref).collect()),
            Self::Other(what) => Cell::Other(what),
        }
    }
}

/// Takes the values of `keys` out of an object and skips the rest without building it.
struct Object<'k> {
    keys: &'k [&'k str],
}

impl<'de> DeserializeSeed<'de> for Object<'_> {
    type Value = Vec<JsonCell<'de>>;

    fn deserialize<D: de::Deserializer<'de>>(self, source: D) -> Result<Self::Value, D::Error> {
        source.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = Vec<JsonCell<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut values: Vec<Option<JsonCell<'de>>> = self.keys.iter().map(|_| None).collect();
        while let Some(key) = map.next_key_seed(Text)? {
            match self.keys.iter().position(|&k| k == key) {
                Some(at) if values[at].is_some() => {
                    return Err(de::Error::custom(format_args!(
                        "the key {key:?} stands twice"
                    )));
                }
                Some(at) => values[at] = Some(map.next_value_seed(Value)?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(values
            .into_iter()
            .map(|v| v.unwrap_or(JsonCell::Missing))
            .collect())
    }
}

/// A string, borrowed where it has no escapes.
struct Text;

impl<'de> DeserializeSeed<'de> for Text {
    type Value = Cow<'de, str>;

    fn deserialize<D: de::Deserializer<'de>>(self, source: D) -> Result<Self::Value, D::Error> {
        source.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Text {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(text))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(text.to_owned()))
    }
}

/// Any value of a key that is wanted.
struct Value;

impl<'de> DeserializeSeed<'de> for Value {
    type Value = JsonCell<'de>;

    fn deserialize<D: de::Deserializer<'de>>(self, source: D) -> Result<Self::Value, D::Error> {
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value {
    type Value = JsonCell<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(JsonCell::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(JsonCell::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
        Ok(JsonCell::Integer(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(number).map_or(JsonCell::Large(number), JsonCell::Integer))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
        Ok(JsonCell::Float(number))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(JsonCell::Missing)
    }

    fn visit_bool<E>(self, _value: bool) -> Result<Self::Value, E> {
        Ok(JsonCell::Other("a truth value"))
    }

    fn visit_seq<S: de::SeqAccess<'de>>(self, mut list: S) -> Result<Self::Value, S::Error> {
        let mut texts = Vec::new();
        let mut others = false;
        while let Some(element) = list.next_element_seed(Value)? {
            match element {
                JsonCell::Text(text) => texts.push(text),
                JsonCell::Missing => {}
                // A product's ways through a tree of categories are lists in a list.
                JsonCell::List(inner) => texts.extend(inner),
                _ => others = true,
            }
        }
        Ok(match others {
            true => JsonCell::Other("a list of more than texts"),
            false => JsonCell::List(texts),
        })
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(JsonCell::Other("an object"))
    }
}
