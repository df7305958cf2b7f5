//! The JSON that C callers ask with. A field that is not known is an error, so that a misspelt one
//! is not taken for the default.

use serde::Deserialize;

use crate::records::Filter;

/// `{"history": ["50", "181"], "k": 10, "filter": {"include_seen": false, "block": [], "allow": null, "categories": null, "block_categories": []}}`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Recommend {
    pub(super) history: Vec<String>,
    #[serde(default = "ten")]
    pub(super) k: u32,
    #[serde(default)]
    pub(super) filter: Filter,
}

/// `{"k": 10, "filter": {..}}`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct List {
    #[serde(default = "ten")]
    pub(super) k: u32,
    #[serde(default)]
    pub(super) filter: Filter,
}

/// `{"history": ["50"], "candidates": ["1", "2"]}`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Score {
    pub(super) history: Vec<String>,
    pub(super) candidates: Vec<String>,
}

/// `{"history": ["50", "181"], "items": ["1"], "max_items": 16, "max_reasons": 3}`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Explain {
    pub(super) history: Vec<String>,
    pub(super) items: Vec<String>,
    #[serde(default = "sixteen")]
    pub(super) max_items: u32,
    #[serde(default = "three")]
    pub(super) max_reasons: u32,
}

fn three() -> u32 {
    3
}

fn ten() -> u32 {
    10
}

fn sixteen() -> u32 {
    16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(json: &str) -> Result<Filter, String> {
        let question = format!(r#"{{"history": ["1"], "filter": {json}}}"#);
        let asked = serde_json::from_str::<Recommend>(&question);
        asked.map(|asked| asked.filter).map_err(|e| e.to_string())
    }

    #[test]
    fn a_filter_is_by_categories_too() {
        let asked = filter(r#"{"categories": ["War"], "block_categories": ["Horror"]}"#);
        let asked = asked.expect("a filter");
        assert_eq!(asked.categories.as_deref(), Some(&["War".to_owned()][..]));
        assert_eq!(asked.block_categories, ["Horror"]);
        let plain = filter(r#"{"categories": null}"#).expect("a filter");
        assert!(plain.categories.is_none() && plain.block_categories.is_empty());
        let misspelt = filter(r#"{"category": ["War"]}"#).expect_err("refused");
        assert!(misspelt.contains("unknown field `category`"), "{misspelt}");
    }
}
