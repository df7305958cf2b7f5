//! Histories: what the device gives, and how it becomes rows of the item table.
//!
//! A history is oldest first. Encoding it looks every id up, drops (and names) the unknown ones
//! and keeps the newest `max_history` of the rest. Positions count real items only: the first kept
//! item is at position 0 (after the prompt, if there is one), so an unpadded run on a device
//! equals a row of a padded batch.

use serde_json::Value;

use crate::vocabulary::{ItemIndex, ItemVocabulary};

/// One item of a history.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryEntry {
    /// Catalog key.
    pub item: String,
    /// When, in any unit that orders (usually seconds).
    pub time: Option<f64>,
}

/// What one person did, oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// Whose history this is, if the file said so.
    pub user: Option<String>,
    /// The items, oldest first.
    pub entries: Vec<HistoryEntry>,
}

impl History {
    /// A history of item ids, oldest first, without times.
    pub fn from_items<I, S>(items: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: Into<String>,
    {
        Self {
            user: None,
            entries: items
                .into_iter()
                .map(|item| HistoryEntry {
                    item: item.into(),
                    time: None,
                })
                .collect(),
        }
    }
}

/// A history as rows of the item table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncodedHistory {
    /// The newest `max_history` known items, oldest first: what the encoder reads.
    pub items: Vec<ItemIndex>,
    /// Every known item of the whole history: what "seen" means to a filter.
    pub seen: Vec<ItemIndex>,
    /// Ids that the vocabulary does not know, in order, each once.
    pub unknown: Vec<String>,
}

/// Why a history file could not be read or encoded.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum HistoryError {
    /// Not JSON at all.
    #[error("not valid JSON: {0}")]
    Json(String),
    /// JSON of another shape.
    #[error("{place}: expected {expected}, found {found}")]
    Shape {
        /// Where in the document, for example `[3].history[0]`.
        place: String,
        /// What would have been right.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// Some entries have a time and some do not, so no order is right.
    #[error("{place}: has no \"time\" while other entries of this history have one")]
    MissingTime {
        /// Where in the document.
        place: String,
    },
    /// Nothing to read.
    #[error("the history is empty")]
    Empty,
    /// Nothing that the catalog knows.
    #[error("none of the {count} items of the history is in the catalog (first: {first:?})")]
    AllUnknown {
        /// How many distinct unknown ids.
        count: usize,
        /// One of them.
        first: String,
    },
    /// More entries than [`MAX_ENTRIES`].
    #[error("a history of {found} entries, at most {MAX_ENTRIES} are read")]
    TooLong {
        /// Number of entries.
        found: usize,
    },
}

/// Most entries of one history.
pub const MAX_ENTRIES: usize = 1_000_000;

/// Encodes a history: unknown ids are dropped and named, the newest `max_history` known items kept.
///
/// # Errors
/// [`HistoryError::Empty`] and [`HistoryError::AllUnknown`]; [`HistoryError::TooLong`].
pub fn encode_history(
    history: &History,
    vocabulary: &ItemVocabulary,
    max_history: usize,
) -> Result<EncodedHistory, HistoryError> {
    if history.entries.is_empty() {
        return Err(HistoryError::Empty);
    }
    if history.entries.len() > MAX_ENTRIES {
        return Err(HistoryError::TooLong {
            found: history.entries.len(),
        });
    }
    let mut known = Vec::with_capacity(history.entries.len());
    let mut unknown = Vec::new();
    let mut named = std::collections::HashSet::new();
    for entry in &history.entries {
        match vocabulary.index_of(&entry.item) {
            Some(index) => known.push(index),
            None if named.insert(entry.item.as_str()) => unknown.push(entry.item.clone()),
            None => {}
        }
    }
    if known.is_empty() {
        return Err(HistoryError::AllUnknown {
            count: unknown.len(),
            first: unknown.swap_remove(0),
        });
    }
    Ok(EncodedHistory {
        items: newest(&known, max_history).to_vec(),
        seen: known,
        unknown,
    })
}

/// The newest `max_history` items of a sequence, oldest first: the one truncation rule that
/// training, evaluation and the device share.
#[must_use]
pub fn newest(items: &[ItemIndex], max_history: usize) -> &[ItemIndex] {
    &items[items.len().saturating_sub(max_history)..]
}

/// Reads a history document. Accepted forms:
///
/// - `["50","181"]`
/// - `{"history": ["50","181"]}`, with an optional `"user"`
/// - `{"history": [{"item":"50","time":881250949}]}`, sorted by time when given (ties keep their order)
/// - a list of the object forms, one per user
///
/// Integers are accepted as ids.
///
/// # Errors
/// Anything else, with the place in the document.
pub fn parse_histories(json: &[u8]) -> Result<Vec<History>, HistoryError> {
    let document: Value =
        serde_json::from_slice(json).map_err(|e| HistoryError::Json(e.to_string()))?;
    match &document {
        Value::Object(_) => Ok(vec![parse_object(&document, "")?]),
        Value::Array(list) if list.first().is_some_and(is_history_object) => list
            .iter()
            .enumerate()
            .map(|(i, value)| parse_object(value, &format!("[{i}]")))
            .collect(),
        Value::Array(list) => Ok(vec![History {
            user: None,
            entries: parse_entries(list, "")?,
        }]),
        other => Err(shape("document", "a list or an object", other)),
    }
}

fn is_history_object(value: &Value) -> bool {
    value.get("history").is_some()
}

fn parse_object(value: &Value, place: &str) -> Result<History, HistoryError> {
    let Some(object) = value.as_object() else {
        return Err(shape(place, "an object with \"history\"", value));
    };
    let list = match object.get("history") {
        Some(Value::Array(list)) => list,
        Some(other) => return Err(shape(&format!("{place}.history"), "a list", other)),
        None => return Err(shape(place, "an object with \"history\"", value)),
    };
    if let Some(key) = object.keys().find(|k| *k != "history" && *k != "user") {
        return Err(HistoryError::Shape {
            place: place.to_owned(),
            expected: "only \"user\" and \"history\"",
            found: format!("the field {key:?}"),
        });
    }
    let user = match object.get("user") {
        None | Some(Value::Null) => None,
        Some(value) => Some(parse_id(value, &format!("{place}.user"))?),
    };
    Ok(History {
        user,
        entries: parse_entries(list, &format!("{place}.history"))?,
    })
}

fn parse_entries(list: &[Value], place: &str) -> Result<Vec<HistoryEntry>, HistoryError> {
    if list.len() > MAX_ENTRIES {
        return Err(HistoryError::TooLong { found: list.len() });
    }
    let mut entries = list
        .iter()
        .enumerate()
        .map(|(i, value)| parse_entry(value, &format!("{place}[{i}]")))
        .collect::<Result<Vec<_>, _>>()?;
    if entries.iter().any(|entry| entry.time.is_some()) {
        if let Some(i) = entries.iter().position(|entry| entry.time.is_none()) {
            return Err(HistoryError::MissingTime {
                place: format!("{place}[{i}]"),
            });
        }
        // Stable, so entries of one instant keep the order of the file.
        entries.sort_by(|a, b| {
            let (a, b) = (a.time.unwrap_or(0.0), b.time.unwrap_or(0.0));
            a.total_cmp(&b)
        });
    }
    Ok(entries)
}

fn parse_entry(value: &Value, place: &str) -> Result<HistoryEntry, HistoryError> {
    let Some(object) = value.as_object() else {
        return Ok(HistoryEntry {
            item: parse_id(value, place)?,
            time: None,
        });
    };
    let Some(item) = object.get("item") else {
        return Err(shape(place, "an id or an object with \"item\"", value));
    };
    let time = match object.get("time") {
        None | Some(Value::Null) => None,
        Some(value) => Some(
            value
                .as_f64()
                .ok_or_else(|| shape(&format!("{place}.time"), "a number", value))?,
        ),
    };
    Ok(HistoryEntry {
        item: parse_id(item, place)?,
        time,
    })
}

fn parse_id(value: &Value, place: &str) -> Result<String, HistoryError> {
    match value {
        Value::String(id) => Ok(id.clone()),
        Value::Number(n) if n.is_i64() || n.is_u64() => Ok(n.to_string()),
        other => Err(shape(place, "a string or an integer", other)),
    }
}

fn shape(place: &str, expected: &'static str, found: &Value) -> HistoryError {
    let mut text = found.to_string();
    if text.len() > 60 {
        let cut = (0..=60).rev().find(|&i| text.is_char_boundary(i));
        text.truncate(cut.unwrap_or(0));
        text.push('…');
    }
    HistoryError::Shape {
        place: if place.is_empty() { "document" } else { place }.to_owned(),
        expected,
        found: text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::Item;

    fn ids(history: &History) -> Vec<&str> {
        history.entries.iter().map(|e| e.item.as_str()).collect()
    }

    fn vocabulary() -> ItemVocabulary {
        ItemVocabulary::new(["a", "b", "c"].map(Item::new).to_vec()).expect("valid")
    }

    #[test]
    fn every_documented_form() {
        let one = parse_histories(br#"["50", 181]"#).expect("list");
        assert_eq!(ids(&one[0]), ["50", "181"]);
        let one = parse_histories(br#"{"history":["50","181"]}"#).expect("object");
        assert_eq!(ids(&one[0]), ["50", "181"]);
        let timed = br#"{"user":7,"history":[{"item":"b","time":2},{"item":"a","time":1},{"item":"c","time":2}]}"#;
        let one = parse_histories(timed).expect("timed");
        assert_eq!(ids(&one[0]), ["a", "b", "c"]);
        assert_eq!(one[0].user.as_deref(), Some("7"));
        let two =
            parse_histories(br#"[{"user":"x","history":["1"]},{"history":[]}]"#).expect("two");
        assert_eq!(two.len(), 2);
        let one = parse_histories(br#"[{"item":"a"},{"item":"b"}]"#).expect("entries");
        assert_eq!(ids(&one[0]), ["a", "b"]);
    }

    #[test]
    fn errors_name_the_place() {
        for (json, part) in [
            (&b"{"[..], "not valid JSON"),
            (b"3", "document: expected a list or an object, found 3"),
            (b"[1.5]", "[0]: expected a string or an integer, found 1.5"),
            (b"[\"a\", null]", "[1]: expected"),
            (br#"{"history":3}"#, ".history: expected a list, found 3"),
            (br#"{"items":[]}"#, "expected an object with \"history\""),
            (br#"{"history":[],"k":1}"#, "the field \"k\""),
            (
                br#"[{"history":[{"item":"a","time":1},{"item":"b"}]}]"#,
                "[0].history[1]: has no \"time\"",
            ),
            (br#"[{"history":[]}, 3]"#, "[1]: expected an object"),
            (
                br#"[{"item":"a","time":"noon"}]"#,
                "[0].time: expected a number",
            ),
        ] {
            let error = parse_histories(json).expect_err("refused").to_string();
            assert!(error.contains(part), "{error:?} should contain {part:?}");
        }
    }

    #[test]
    fn keeps_the_newest_and_names_the_unknown() {
        let history = History::from_items(["a", "x", "b", "x", "c"]);
        let encoded = encode_history(&history, &vocabulary(), 2).expect("encodes");
        assert_eq!(encoded.items, [ItemIndex(2), ItemIndex(3)]);
        assert_eq!(encoded.seen, [ItemIndex(1), ItemIndex(2), ItemIndex(3)]);
        assert_eq!(encoded.unknown, ["x"]);
    }

    #[test]
    fn empty_and_unknown_are_typed() {
        let v = vocabulary();
        assert_eq!(
            encode_history(&History::default(), &v, 5),
            Err(HistoryError::Empty)
        );
        assert!(matches!(
            encode_history(&History::from_items(["x", "y"]), &v, 5),
            Err(HistoryError::AllUnknown { count: 2, .. })
        ));
    }
}
