//! `slmrec-run inspect`: what is in a bundle. Nothing is run.

use std::fmt::Write;
use std::path::Path;

use anyhow::Context;
use comfy_table::{Cell, Table};
use serde::Serialize;
use slmrec_core::manifest::GraphTarget;
use slmrec_core::{Bundle, Categories, Certificate, ItemIndex, Manifest, Split};
use slmrec_runtime::{ProviderChoice, provider_choice};

use crate::arguments::{Format, InspectArguments};
use crate::output::{self, number, printable};
use crate::{bundle_search, machine, report};

#[derive(Serialize)]
struct Report<'a> {
    path: String,
    file_bytes: u64,
    sha256: &'a str,
    engines: Engines,
    /// What was found out about providers, on this and other machines that share the cache.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    provider_choices: Vec<ProviderChoice>,
    /// The category of most items first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    categories: Vec<CategoryRow>,
    manifest: &'a Manifest,
}

#[derive(Serialize)]
struct CategoryRow {
    name: String,
    /// Number of items that have it.
    items: usize,
}

/// Most categories that are printed for people.
const CATEGORIES: usize = 20;

/// Which member each engine would run.
#[derive(Serialize)]
struct Engines {
    onnxruntime: Option<String>,
    tract: Option<String>,
}

pub(crate) fn run(arguments: &InspectArguments) -> anyhow::Result<bool> {
    let path = bundle_search::find(arguments.bundle.bundle.as_deref())?;
    let mut bundle = Bundle::open(&path)?;
    let categories = category_rows(bundle.vocabulary()?.categories());
    let report = Report {
        path: path.display().to_string(),
        file_bytes: file_size(&path)?,
        sha256: bundle.sha256(),
        engines: Engines::of(bundle.manifest()),
        provider_choices: machine::provider_cache()
            .map(|cache| provider_choice::remembered(&cache, bundle.sha256()))
            .unwrap_or_default(),
        categories,
        manifest: bundle.manifest(),
    };
    let text = match arguments.format.format {
        Format::Json => output::json(&report)?,
        Format::Table => report.tables(),
    };
    output::print(&text)?;
    Ok(true)
}

/// The category of most items first, equal ones by name.
fn category_rows(categories: &Categories) -> Vec<CategoryRow> {
    let row = |(name, items): (&str, &[ItemIndex])| CategoryRow {
        name: name.to_owned(),
        items: items.len(),
    };
    let mut rows: Vec<CategoryRow> = categories.iter().map(row).collect();
    // Stable: the names are in order already.
    rows.sort_by_key(|row| std::cmp::Reverse(row.items));
    rows
}

/// What quantization cost when the bundle was written.
fn certified(certificate: &Certificate) -> String {
    let form = &certificate.chosen;
    format!(
        "{}, {} item rows: NDCG@10 {:.4} of {:.4} in fp32 ({:+.2} %) on {} targets of {} users, top-10 overlap {:.3}",
        form.quantization,
        form.item_rows,
        form.ndcg_10,
        certificate.reference_ndcg_10,
        -100.0 * form.drop(certificate.reference_ndcg_10),
        match certificate.split {
            Split::Validation => "validation",
            Split::Test => "test",
        },
        certificate.users,
        form.overlap_10,
    )
}

fn file_size(path: &Path) -> anyhow::Result<u64> {
    let metadata = std::fs::metadata(path).with_context(|| path.display().to_string())?;
    Ok(metadata.len())
}

impl Engines {
    fn of(manifest: &Manifest) -> Self {
        let encoders = &manifest.encoders;
        let portable = encoders.iter().find(|e| e.target == GraphTarget::Any);
        Self {
            onnxruntime: encoders.first().map(|e| e.member.clone()),
            tract: portable.map(|e| e.member.clone()),
        }
    }
}

impl Report<'_> {
    fn tables(&self) -> String {
        let mut facts = output::table(&["Bundle", ""]);
        for (name, value) in self.facts() {
            facts.add_row([name.to_owned(), printable(&value)]);
        }
        let mut members = output::table(&["Member", "Bytes", "SHA-256"]);
        for (name, entry) in &self.manifest.members {
            members.add_row([
                Cell::new(printable(name)),
                number(entry.bytes),
                Cell::new(entry.sha256.get(..16).unwrap_or(&entry.sha256)),
            ]);
        }
        let mut text = String::new();
        let _ = writeln!(text, "{facts}\n{members}");
        if !self.categories.is_empty() {
            let _ = writeln!(text, "{}", self.category_table());
        }
        text.extend(self.provider_choices.iter().map(report::provider_table));
        text
    }

    fn category_table(&self) -> Table {
        let all = self.categories.len();
        let head = match all {
            0..=CATEGORIES => format!("Category ({all})"),
            _ => format!("Category (the first {CATEGORIES} of {all})"),
        };
        let mut table = output::table(&[&head, "Items"]);
        for row in self.categories.iter().take(CATEGORIES) {
            table.add_row([Cell::new(printable(&row.name)), number(row.items)]);
        }
        table
    }

    fn facts(&self) -> Vec<(&'static str, String)> {
        let Manifest {
            model, items, data, ..
        } = self.manifest;
        let engine = |member: &Option<String>| member.clone().unwrap_or("no graph for it".into());
        let mut facts = vec![
            ("file", format!("{} ({} bytes)", self.path, self.file_bytes)),
            ("format version", self.manifest.format_version.to_string()),
            ("made by", self.manifest.created_by.clone()),
            ("precision", self.manifest.precision.to_string()),
            (
                "model",
                format!(
                    "{} from {}: {} layers, hidden {}, {} heads, {} key/value heads",
                    model.model_type,
                    model.base,
                    model.num_hidden_layers,
                    model.hidden_size,
                    model.num_attention_heads,
                    model.num_key_value_heads
                ),
            ),
            (
                "trained on",
                match model.trained_before {
                    Split::Validation => "all before the validation items",
                    Split::Test => "the validation items, too",
                }
                .to_owned(),
            ),
            (
                "reads",
                format!(
                    "{} items at most, readout {}",
                    model.max_history, model.readout
                ),
            ),
            (
                "prompt",
                format!(
                    "{} tokens before, {} after the items",
                    model.prompt.prefix_tokens, model.prompt.suffix_tokens
                ),
            ),
            (
                "catalog",
                format!(
                    "{} items x {}, {:?}",
                    items.count, items.dim, items.row_type
                ),
            ),
            (
                "data",
                format!(
                    "{}: {} users, {} interactions",
                    data.name, data.users, data.interactions
                ),
            ),
            ("onnxruntime runs", engine(&self.engines.onnxruntime)),
            ("tract runs", engine(&self.engines.tract)),
        ];
        if let Some(certificate) = &self.manifest.certificate {
            facts.push(("quantization", certified(certificate)));
        }
        for (name, value) in &self.manifest.metrics {
            facts.push(("metric", format!("{name}: {value}")));
        }
        facts
    }
}
