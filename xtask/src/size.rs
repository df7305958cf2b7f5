//! `cargo xtask size`: what an app gains in megabytes, and what they consist of.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use comfy_table::{CellAlignment, Table, presets};

use crate::{process, setup, workspace};

/// Largest stripped library that is good enough, in bytes.
const GOAL: u64 = 3_000_000;
/// Growth beyond the recorded size that is worth a notice.
const GROWTH: f64 = 1.05;
/// Sizes by target, in bytes.
const RECORD: &str = "runtime/ffi/size.json";
const PROFILE: &str = "mobile";

/// Show how large the shared library for apps is, by crate and section
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  cargo xtask size\n  cargo xtask size --bundle student.slmrec\n  \
    cargo xtask size --record    # the size of today becomes the recorded one"
)]
pub(crate) struct Arguments {
    /// A bundle to name beside the libraries
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
    /// Build for this target instead of this machine's; its linker must be set up
    #[arg(long, value_name = "TRIPLE")]
    target: Option<String>,
    /// Write the size into the file that later runs compare with
    #[arg(long)]
    record: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let target = match &arguments.target {
        Some(target) => target.clone(),
        None => host()?,
    };
    let library = build(&target, arguments.target.is_some())?;
    let folder = tempfile::tempdir()?;
    let stripped = folder.path().join("stripped");
    process::run(Command::new("strip").arg("-o").arg(&stripped).arg(&library))?;
    let bytes = size_of(&stripped)?;

    println!("{}", parts(&library, &stripped)?);
    println!("{}", whole(arguments, &target, bytes)?);
    let verdict = if bytes <= GOAL { "met" } else { "missed" };
    println!("goal: at most {} MB, {verdict}", megabytes(GOAL));
    compare(&target, bytes, arguments.record)
}

/// The target of this machine.
pub(crate) fn host() -> Result<String> {
    let version = process::stdout_of(Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc names no host")?.to_owned())
}

/// Builds the shared library as an app ships it, and gives its path.
pub(crate) fn build(target: &str, cross: bool) -> Result<PathBuf> {
    let mut cargo = workspace::cargo();
    cargo.args(["build", "--locked", "--package", "slmrec-ffi"]);
    cargo.args(["--profile", PROFILE]);
    let mut folder = workspace::target_dir();
    if cross {
        cargo.args(["--target", target]);
        folder = folder.join(target);
    }
    process::run(&mut cargo)?;
    let name = format!(
        "{}slmrec_ffi{}",
        env::consts::DLL_PREFIX,
        env::consts::DLL_SUFFIX
    );
    Ok(folder.join(PROFILE).join(name))
}

/// Sizes of code and constants by crate, by the names of symbols, and of what has no names.
fn parts(library: &Path, stripped: &Path) -> Result<Table> {
    let symbols = process::stdout_of(
        Command::new("nm")
            .args(["--print-size", "--demangle", "--defined-only"])
            .arg(library),
    )?;
    let crates = by_crate(&symbols);
    ensure!(
        !crates.is_empty(),
        "{}: no symbols with sizes",
        library.display()
    );
    let named: u64 = crates.values().sum();
    let whole = size_of(stripped)?;
    let mut rows: Vec<(String, u64)> = crates.into_iter().collect();
    rows.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let rest = rows.split_off(rows.len().min(16));
    if !rest.is_empty() {
        let bytes = rest.iter().map(|(_, bytes)| bytes).sum();
        rows.push((format!("{} others", rest.len()), bytes));
    }
    rows.push((
        "without a name: texts, unwinding and relocation tables".into(),
        whole.saturating_sub(named),
    ));
    rows.push(("the stripped library".into(), whole));
    Ok(table(["part", "kB"], rows, |bytes| {
        format!("{:.0}", bytes as f64 / 1000.0)
    }))
}

/// Bytes of code and constants by crate, from lines like
/// `0000000000012340 0000000000000120 t <alloc::vec::Vec<T> as core::clone::Clone>::clone`.
fn by_crate(symbols: &str) -> BTreeMap<String, u64> {
    let mut sizes = BTreeMap::new();
    for line in symbols.lines() {
        let mut fields = line.splitn(4, ' ');
        let (Some(_), Some(size), Some(kind), Some(name)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let stored = matches!(
            kind,
            "t" | "T" | "r" | "R" | "d" | "D" | "w" | "W" | "v" | "V"
        );
        if let (true, Ok(bytes)) = (stored, u64::from_str_radix(size, 16)) {
            *sizes.entry(crate_of(name)).or_default() += bytes;
        }
    }
    sizes
}

/// The crate that a symbol belongs to: that of the type for `<type as trait>::function`. Names
/// without a path are those of C.
fn crate_of(name: &str) -> String {
    let start = name.trim_start_matches(['<', '&', '*', '[', '(', '_']);
    let start = ["mut ", "const ", "dyn "]
        .iter()
        .fold(start, |text, word| text.strip_prefix(word).unwrap_or(text));
    let end = start.find(|c: char| !c.is_alphanumeric() && c != '_');
    let (first, rest) = start.split_at(end.unwrap_or(start.len()));
    match first {
        _ if !rest.starts_with("::") => "C code and generic glue".into(),
        "core" | "alloc" | "std" => "std".into(),
        first => first.to_owned(),
    }
}

fn whole(arguments: &Arguments, target: &str, bytes: u64) -> Result<Table> {
    let mut rows = vec![(format!("libslmrec_ffi, stripped, {target}"), bytes)];
    let onnxruntime = setup::onnxruntime()?;
    rows.push((
        format!("ONNX Runtime of this machine, {}", file_name(&onnxruntime)),
        size_of(&onnxruntime)?,
    ));
    if let Some(bundle) = &arguments.bundle {
        rows.push((format!("bundle {}", file_name(bundle)), size_of(bundle)?));
    }
    Ok(table(["what an app carries", "MB"], rows, megabytes))
}

fn table(header: [&str; 2], rows: Vec<(String, u64)>, show: impl Fn(u64) -> String) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_FULL_CONDENSED);
    table.set_header(header);
    for (name, bytes) in rows {
        table.add_row([name, show(bytes)]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Says how the size stands to the recorded one; a notice, not a failure, when it has grown.
fn compare(target: &str, bytes: u64, record: bool) -> Result<()> {
    let path = workspace::root().join(RECORD);
    let mut sizes: BTreeMap<String, u64> = match fs::read_to_string(&path) {
        Ok(text) => serde_json::from_str(&text).with_context(|| RECORD.to_owned())?,
        Err(_) => BTreeMap::new(),
    };
    if record {
        sizes.insert(target.to_owned(), bytes);
        fs::write(&path, serde_json::to_string_pretty(&sizes)? + "\n")?;
        println!("recorded in {RECORD}");
        return Ok(());
    }
    println!("{}", growth(target, bytes, sizes.get(target).copied()));
    Ok(())
}

fn growth(target: &str, bytes: u64, recorded: Option<u64>) -> String {
    let Some(recorded) = recorded else {
        return format!("notice: {RECORD} has no size for {target}; --record writes it");
    };
    let ratio = bytes as f64 / recorded as f64;
    let sentence = format!(
        "{:+.1} % against the recorded {} MB",
        (ratio - 1.0) * 100.0,
        megabytes(recorded)
    );
    if ratio > GROWTH {
        return format!("notice: the library has grown: {sentence}");
    }
    sentence
}

fn size_of(path: &Path) -> Result<u64> {
    Ok(fs::metadata(path)
        .with_context(|| path.display().to_string())?
        .len())
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn megabytes(bytes: u64) -> String {
    format!("{:.2}", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_belong_to_crates() {
        let symbols = "0000000000001000 0000000000000010 t slmrec_core::bundle::open\n\
            0000000000001010 0000000000000020 T <zip::read::Archive as core::fmt::Debug>::fmt\n\
            0000000000001030 0000000000000001 r <&mut serde_json::Value as core::fmt::Debug>::{vtable}\n\
            0000000000001040 0000000000000004 T slmrec_open\n\
            0000000000001050 0000000000000008 b zip::counter\n\
            0000000000001060 0000000000000002 t core::ptr::drop_in_place<zip::Archive>\n\
            0000000000001070 t nameless\n";
        let expected = [
            ("C code and generic glue", 4),
            ("serde_json", 1),
            ("slmrec_core", 16),
            ("std", 2),
            ("zip", 32),
        ];
        let expected = expected.map(|(name, bytes)| (name.to_owned(), bytes));
        assert_eq!(by_crate(symbols), BTreeMap::from(expected));
    }

    #[test]
    fn growth_is_noticed() {
        let say = |bytes, recorded| growth("t", bytes, recorded);
        assert!(say(104, Some(100)).starts_with("+4.0 %"));
        assert!(say(106, Some(100)).starts_with("notice: the library has grown: +6.0 %"));
        assert!(say(90, Some(100)).starts_with("-10.0 %"));
        assert!(say(1, None).starts_with("notice: "));
    }
}
