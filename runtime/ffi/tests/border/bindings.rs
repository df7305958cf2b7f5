//! Generated sources are committed, so that a person who builds an app needs no Rust, and are
//! what the library gives today. `cargo xtask bindings` writes them anew.

use crate::support;
use std::fs;
use std::path::{Path, PathBuf};

use uniffi_bindgen::bindings::{GenerateOptions, TargetLanguage, generate};

/// When set, the committed files are written instead of compared.
const WRITE_VARIABLE: &str = "SLMREC_WRITE_BINDINGS";

const KOTLIN: &str = "android/slmrec/src/main/kotlin/io/slmrec/ffi/slmrec.kt";
const SWIFT: &str = "ios/Sources/SLMRecFFI/SLMRecFFI.swift";
const SWIFT_HEADER: &str = "ios/Sources/SLMRecC/include/SLMRecC.h";
const SWIFT_MODULE_MAP: &str = "ios/Sources/SLMRecC/include/module.modulemap";
const HEADER: &str = "runtime/ffi/include/slmrec.h";

#[test]
fn committed_kotlin_and_swift_are_what_the_library_gives() {
    let out = tempfile::tempdir().expect("temporary folder");
    let crate_root = env!("CARGO_MANIFEST_DIR");
    let config = out.path().join("bindgen.toml");
    fs::write(
        &config,
        format!("[crate-roots]\nslmrec_ffi = {crate_root:?}\n"),
    )
    .expect("written");
    generate(GenerateOptions {
        languages: vec![TargetLanguage::Kotlin, TargetLanguage::Swift],
        source: utf8(&support::library()).into(),
        out_dir: utf8(out.path()).into(),
        config_override: Some(utf8(&config).into()),
        ..GenerateOptions::default()
    })
    .expect("generates");
    compare(&[
        (&out.path().join("io/slmrec/ffi/slmrec.kt"), KOTLIN),
        (&out.path().join("SLMRecFFI.swift"), SWIFT),
        (&out.path().join("SLMRecC.h"), SWIFT_HEADER),
        (&out.path().join("SLMRecC.modulemap"), SWIFT_MODULE_MAP),
    ]);
}

#[test]
fn the_committed_header_is_what_the_sources_give() {
    let out = tempfile::tempdir().expect("temporary folder");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).expect("a configuration");
    let mut builder = cbindgen::Builder::new().with_config(config);
    for file in [
        "status.rs",
        "linked.rs",
        "recommender.rs",
        "history_state.rs",
    ] {
        builder = builder.with_src(root.join("src/c").join(file));
    }
    let header = out.path().join("slmrec.h");
    builder
        .generate()
        .expect("generates")
        .write_to_file(&header);
    compare(&[(&header, HEADER)]);
}

/// Compares all before it fails, or writes all.
fn compare(files: &[(&Path, &str)]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut differ = Vec::new();
    for (fresh, committed) in files {
        let text = without_trailing_spaces(&fs::read_to_string(fresh).expect("generated"));
        let path = root.join(committed);
        if std::env::var_os(WRITE_VARIABLE).is_some() {
            fs::create_dir_all(path.parent().expect("a folder")).expect("made");
            fs::write(&path, text).expect("written");
        } else if fs::read_to_string(&path).ok().as_deref() != Some(text.as_str()) {
            differ.push(*committed);
        }
    }
    assert!(
        differ.is_empty(),
        "{} differ from what the library gives; run `cargo xtask bindings`",
        differ.join(", ")
    );
}

/// Templates leave some, which editors and `git diff --check` mind.
fn without_trailing_spaces(text: &str) -> String {
    let mut lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    while lines.last().is_some_and(|line| line.is_empty()) {
        lines.pop();
    }
    lines.join("\n") + "\n"
}

fn utf8(path: &Path) -> String {
    PathBuf::from(path)
        .into_os_string()
        .into_string()
        .expect("UTF-8")
}
