//! What source files may not contain.

use std::fs;
use std::path::{Path, PathBuf};

use crate::rust_code::{code_of, item_end, line_of, words};
use crate::{expect_none, root};

/// Folders of code that is linked into other people's programs.
const LIBRARIES: &[&str] = &[
    "runtime/core/src",
    "runtime/src",
    "runtime/ffi/src",
    "export/src",
    "distill/src",
];
/// Parts of those folders that belong to a program.
const PROGRAMS: &[&str] = &["distill/src/cli", "distill/src/main.rs"];
/// The only place for `unsafe`.
const UNSAFE_FOLDER: &str = "runtime/ffi";
/// What only a program may do: talk to the terminal, end the process, look at its surroundings.
const FOR_PROGRAMS: &[&str] = &[
    "println!",
    "print!",
    "eprintln!",
    "eprint!",
    "dbg!",
    "process::exit",
    "std::env",
];
/// Constants of the build, which say nothing about the surroundings of the process.
const BUILD_CONSTANTS: &str = "std::env::consts";
/// Crates whose types stay out of the runtime's public interface.
const ENGINE_CRATES: &[&str] = &["ort", "tract", "tract_onnx"];

#[test]
fn unsafe_stays_in_the_ffi_crate() {
    let root = root();
    let mut files = Vec::new();
    for folder in ["runtime", "distill", "export", "tests", "xtask"] {
        files.extend(rust_files(&root.join(folder)));
    }
    assert!(files.len() > 20, "{} files", files.len());
    files.retain(|path| !path.starts_with(root.join(UNSAFE_FOLDER)));
    expect_none(&each(&files, |code| occurrences(code, &["unsafe"])));
}

#[test]
fn libraries_do_not_print_exit_or_read_the_environment() {
    let root = root();
    for folder in LIBRARIES {
        let mut files = rust_files(&root.join(folder));
        assert!(!files.is_empty(), "{folder} has no source");
        files.retain(|path| !PROGRAMS.iter().any(|p| path.starts_with(root.join(p))));
        expect_none(&each(&files, |code| occurrences(code, FOR_PROGRAMS)));
    }
}

#[test]
fn engine_types_stay_inside_the_runtime() {
    let files = rust_files(&root().join("runtime/src"));
    expect_none(&each(&files, engine_types_in_public));
}

/// Rust files under a folder, without files of tests only.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder of the workspace") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() {
            if name != "target" {
                found.extend(rust_files(&path));
            }
        } else if path.extension().is_some_and(|e| e == "rs") && name != "tests.rs" {
            found.push(path);
        }
    }
    found
}

/// Applies a check that gives positions and messages to each file.
fn each(files: &[PathBuf], check: impl Fn(&str) -> Vec<(usize, String)>) -> Vec<String> {
    let mut wrong = Vec::new();
    for path in files {
        let code = code_of(&fs::read_to_string(path).expect("a source file"));
        for (at, found) in check(&code) {
            wrong.push(format!(
                "{}:{}: {found}",
                path.display(),
                line_of(&code, at)
            ));
        }
    }
    wrong
}

fn occurrences(code: &str, banned: &[&str]) -> Vec<(usize, String)> {
    let found = |word: &&str| -> Vec<(usize, String)> {
        words(code, word)
            .filter(|&at| !code[at..].starts_with(BUILD_CONSTANTS))
            .map(|at| (at, format!("`{word}`")))
            .collect()
    };
    banned.iter().flat_map(found).collect()
}

/// Public items that name an engine's crate, or a type that the file imports from one.
fn engine_types_in_public(code: &str) -> Vec<(usize, String)> {
    let mut names: Vec<String> = ENGINE_CRATES.iter().map(|&c| format!("{c}::")).collect();
    names.extend(imported_types(code));
    let mut wrong = Vec::new();
    for (at, text) in public_parts(code) {
        for name in &names {
            if words(text, name).next().is_some() {
                let first_line = text.lines().next().unwrap_or_default();
                wrong.push((at, format!("`{first_line}` shows {name} to callers")));
            }
        }
    }
    wrong
}

/// Names that `use ort::...` brings into scope, as far as they look like types.
fn imported_types(code: &str) -> Vec<String> {
    let mut names = Vec::new();
    for at in words(code, "use") {
        let statement = &code[at..item_end_of_use(code, at)];
        let path = statement["use".len()..].trim_start();
        let Some((first, rest)) = path.split_once("::") else {
            continue;
        };
        if ENGINE_CRATES.contains(&first) {
            let identifiers = rest.split(|c: char| !c.is_alphanumeric() && c != '_');
            let types = identifiers.filter(|i| i.starts_with(char::is_uppercase));
            names.extend(types.map(str::to_owned));
        }
    }
    names
}

fn item_end_of_use(code: &str, at: usize) -> usize {
    code[at..].find(';').map_or(code.len(), |i| at + i)
}

/// What callers see of each `pub` item: signatures, public fields, whole enums and traits, and the
/// heads of trait implementations (`impl From<ort::Error> for Error` shows a type too).
/// `unreachable_pub` sees to it that `pub` means public.
fn public_parts(code: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    for at in words(code, "pub") {
        let rest = code[at + 3..].trim_start();
        if rest.starts_with('(') {
            continue;
        }
        let kind = rest.split_whitespace().next().unwrap_or_default();
        let end = match kind {
            "enum" | "trait" => item_end(code.as_bytes(), at),
            "use" => item_end_of_use(code, at),
            "fn" | "const" | "static" | "type" | "async" | "struct" | "mod" => head_end(code, at),
            _ => code[at..].find('\n').map_or(code.len(), |i| at + i),
        };
        parts.push((at, &code[at..end]));
    }
    for at in words(code, "impl") {
        let head = &code[at..head_end(code, at)];
        if words(head, "for").next().is_some() {
            parts.push((at, head));
        }
    }
    parts
}

fn head_end(code: &str, at: usize) -> usize {
    code[at..].find(['{', ';']).map_or(code.len(), |i| at + i)
}

#[test]
fn unsafe_printing_and_environment_are_found() {
    let bad = "fn f() {\n unsafe { g() }\n println!(\"x\"); std::env::var(\"A\"); std::process::exit(1) }";
    assert_eq!(occurrences(bad, &["unsafe"]).len(), 1);
    let found = occurrences(bad, FOR_PROGRAMS);
    assert_eq!(found.len(), 3, "{found:?}");
    let good = "fn f() { let unsafe_code = env!(\"A\"); writeln!(x, std::env::consts::OS) }";
    assert!(occurrences(good, FOR_PROGRAMS).is_empty());
    assert!(occurrences(good, &["unsafe"]).is_empty());
}

#[test]
fn engine_types_are_found_wherever_callers_see_them() {
    for bad in [
        "pub fn session(&self) -> &ort::session::Session { }",
        "use ort::session::{Session, builder::SessionBuilder};\npub fn take(\n    s: Session,\n) {}",
        "pub struct A { pub model: tract_onnx::prelude::Graph, x: u8 }",
        "pub struct A {\n    pub model: tract_onnx::prelude::Graph,\n}",
        "pub enum E { Engine(ort::Error) }",
        "pub trait T { fn t(&self) -> ort::Result<()>; }",
        "pub use ort::session::Session;",
        "impl From<ort::Error> for RuntimeError { }",
    ] {
        assert!(!engine_types_in_public(bad).is_empty(), "{bad}");
    }
    for good in [
        "use ort::session::Session;\npub struct A { session: Session }",
        "use ort::session::Session;\npub fn f(x: u8) -> u8 { Session::builder() }",
        "pub(crate) fn f(s: &ort::session::Session) {}",
        "pub fn sort(x: &str) -> Report {}",
        "impl A { fn private(s: ort::session::Session) {} }",
    ] {
        assert!(
            engine_types_in_public(good).is_empty(),
            "{good}: {:?}",
            engine_types_in_public(good)
        );
    }
}
