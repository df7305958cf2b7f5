//! `cargo xtask bench`: runs the programs in `tests/benches` and shows their rows.
//!
//! A bench is a `cargo bench` target without the test harness. It prints a JSON list of rows on
//! stdout (`slmrec_tests::bench` has the type and the timing); whatever it says on stderr is shown.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, Serialize};

use crate::{process, python, setup, test_android, workspace};

/// Chooses the Python that benches compare with.
const PYTHON_VARIABLE: &str = "SLMREC_BENCH_PYTHON";
/// For training and scoring: PyTorch, and the quantizer of the ONNX Runtime that we load.
const TORCH_PACKAGES: [&str; 5] = [
    "torch==2.15.0",
    "transformers==5.23.0",
    "peft==0.21.2",
    "onnx==1.23.2",
    "onnxruntime==1.31.1",
];
/// For the catalog: exact search by others.
const SEARCH_PACKAGES: [&str; 3] = ["numpy==2.4.6", "numkong==7.8.6", "usearch==2.26.6"];

/// The bench that is a test of the Kotlin sources and no program of ours.
const BORDER: &str = "ffi";

/// Run the benches in `tests/benches` and compare us with our peers
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  cargo xtask bench\n  cargo xtask bench score --format json")]
pub(crate) struct Arguments {
    /// Run this bench only
    name: Option<String>,
    /// How to print the rows
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// What was measured, beside what it is compared with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    case: String,
    metric: String,
    ours: f64,
    /// Tenth and ninetieth percentile of what `ours` is the median of.
    spread: Option<[f64; 2]>,
    peer: Option<String>,
    theirs: Option<f64>,
    /// `ours / theirs`.
    ratio: Option<f64>,
    /// Largest ratio that is good enough.
    goal: Option<f64>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let mut all = all_names(&workspace::root().join("tests/benches"))?;
    all.push(BORDER.to_owned());
    let names = chosen(all, arguments.name.as_deref())?;
    let library = setup::onnxruntime()?;
    let mut rows = Vec::new();
    for name in names {
        if name == BORDER {
            rows.extend(parse(&test_android::bench(&library)?).context("bench ffi")?);
            continue;
        }
        let mut cargo = workspace::cargo();
        cargo
            .args([
                "bench",
                "--quiet",
                "--locked",
                // Not one package alone: its dependencies would be built with other features.
                "--workspace",
                "--bench",
                &name,
            ])
            .env(setup::DYLIB_VARIABLE, &library)
            .env("ORT_DISABLE_TELEMETRY", "1");
        if let Some(python) = python(&name)? {
            cargo.env(PYTHON_VARIABLE, python);
        }
        eprintln!("bench {name}");
        rows.extend(
            parse(&process::stdout_of(&mut cargo)?).with_context(|| format!("bench {name}"))?,
        );
    }
    match arguments.format {
        Format::Json => println!("{}", serde_json::to_string_pretty(&rows)?),
        Format::Table => println!("{}", table(&rows)),
    }
    Ok(())
}

/// A Python with what the bench compares with: the one that the environment names, or a private
/// one that is made here. `None` for benches that need none.
fn python(bench: &str) -> Result<Option<PathBuf>> {
    let (name, packages): (_, &[&str]) = match bench {
        "train" | "score" | "batch" => ("bench-python", &TORCH_PACKAGES),
        "catalog" => ("search-python", &SEARCH_PACKAGES),
        _ => return Ok(None),
    };
    Ok(Some(match env::var_os(PYTHON_VARIABLE) {
        Some(chosen) => chosen.into(),
        None => python::environment(name, packages)?,
    }))
}

fn all_names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == "rs") {
            names.extend(
                path.file_stem()
                    .map(|stem| stem.to_string_lossy().into_owned()),
            );
        }
    }
    names.sort();
    Ok(names)
}

fn chosen(all: Vec<String>, name: Option<&str>) -> Result<Vec<String>> {
    let Some(name) = name else { return Ok(all) };
    let known = all.join(", ");
    ensure!(
        all.iter().any(|n| n == name),
        "no bench named {name}; there are: {known}"
    );
    Ok(vec![name.to_owned()])
}

fn parse(stdout: &str) -> Result<Vec<Row>> {
    let rows: Vec<Row> = serde_json::from_str(stdout).context("stdout is not a list of rows")?;
    ensure!(!rows.is_empty(), "it measured nothing");
    for row in &rows {
        let expected = row.theirs.map(|theirs| row.ours / theirs);
        let agrees = match (row.ratio, expected) {
            (Some(ratio), Some(expected)) => (ratio - expected).abs() <= 1e-6 * expected.abs(),
            (ratio, expected) => ratio.is_none() && expected.is_none(),
        };
        ensure!(
            agrees,
            "{}: the ratio {:?} is not ours / theirs",
            row.case,
            row.ratio
        );
    }
    Ok(rows)
}

/// The rows for people; the column of the spread only where a row has one.
fn table(rows: &[Row]) -> Table {
    let spread = rows.iter().any(|row| row.spread.is_some());
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    let mut header = vec![
        "case", "metric", "ours", "peer", "theirs", "ratio", "goal", "",
    ];
    if spread {
        header.insert(3, "10-90 %");
    }
    table.set_header(header);
    for row in rows {
        let verdict = match (row.ratio, row.goal) {
            (Some(ratio), Some(goal)) if ratio <= goal => "met",
            (Some(_), Some(_)) => "missed",
            _ => "",
        };
        let mut cells = vec![
            row.case.clone(),
            row.metric.clone(),
            number(Some(row.ours)),
            row.peer.clone().unwrap_or_default(),
            number(row.theirs),
            number(row.ratio),
            row.goal
                .map_or_else(String::new, |goal| format!("<= {goal}")),
            verdict.to_owned(),
        ];
        if spread {
            let range =
                |[low, high]: [f64; 2]| format!("{}-{}", number(Some(low)), number(Some(high)));
            cells.insert(3, row.spread.map_or_else(String::new, range));
        }
        table.add_row(cells);
    }
    let right: &[usize] = if spread { &[2, 3, 5, 6] } else { &[2, 4, 5] };
    for &column in right {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Four significant digits at most three decimals long; empty for nothing.
fn number(value: Option<f64>) -> String {
    match value {
        None => String::new(),
        Some(v) if v.abs() >= 1000.0 => format!("{v:.0}"),
        Some(v) if v.abs() >= 10.0 => format!("{v:.1}"),
        Some(v) => format!("{v:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: &str = r#"{"case":"c","metric":"ms","ours":1.0,"spread":null,"peer":"p",
        "theirs":4.0,"ratio":0.25,"goal":0.5}"#;

    #[test]
    fn rows_are_checked() {
        let rows = parse(&format!("[{ROW}]")).expect("one row");
        assert_eq!(rows[0].ratio, Some(0.25));
        for bad in ["[]", "", "[{}]"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        for (from, to) in [("0.25", "0.3"), ("0.25", "null"), ("case", "name")] {
            assert!(
                parse(&format!("[{}]", ROW.replace(from, to))).is_err(),
                "{to}"
            );
        }
    }

    #[test]
    fn the_table_judges_goals() {
        let mut rows = parse(&format!("[{ROW}]")).expect("one row");
        assert!(table(&rows).to_string().contains("met"));
        rows[0].goal = Some(0.2);
        assert!(table(&rows).to_string().contains("missed"));
    }

    #[test]
    fn the_spread_has_a_column_where_it_is_known() {
        let mut rows = parse(&format!("[{ROW}]")).expect("one row");
        assert!(!table(&rows).to_string().contains("10-90 %"));
        rows[0].spread = Some([0.5, 12.0]);
        let table = table(&rows).to_string();
        assert!(
            table.contains("10-90 %") && table.contains("0.500-12.0"),
            "{table}"
        );
    }

    #[test]
    fn names_are_the_files() {
        let dir = tempfile::tempdir().expect("temporary folder");
        for file in ["b.rs", "a.rs", "notes.md"] {
            fs::write(dir.path().join(file), "").expect("written");
        }
        let all = all_names(dir.path()).expect("listed");
        assert_eq!(all, ["a", "b"]);
        assert_eq!(chosen(all.clone(), Some("b")).expect("known"), ["b"]);
        assert!(chosen(all, Some("c")).is_err());
    }
}
