//! The C example, compiled against the committed header and run on a real bundle.

use crate::support;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// What ONNX Runtime does inside itself.
const SUPPRESSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/border/onnxruntime.supp");

struct Example {
    _folder: TempDir,
    program: PathBuf,
}

fn compile(flags: &[&str]) -> Example {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().expect("temporary folder");
    let program = folder.path().join("recommend");
    let output = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror", "-g"])
        .args(flags)
        .arg("-I")
        .arg(root.join("include"))
        .arg(root.join("../../examples/c/recommend.c"))
        .arg(support::library())
        .arg("-o")
        .arg(&program)
        .output()
        .expect("a C compiler");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    Example {
        _folder: folder,
        program,
    }
}

fn arguments(program: &mut Command) -> &mut Command {
    program
        .arg(support::bundle())
        .arg(support::onnxruntime())
        .args(["item-1", "nowhere", "item-8"])
        .env("LD_LIBRARY_PATH", support::library_folder())
        .env("DYLD_LIBRARY_PATH", support::library_folder())
        .env("ORT_DISABLE_TELEMETRY", "1")
}

fn check(mut command: Command) {
    let output = arguments(&mut command).output().expect("runs");
    let (out, error) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{out}\n{error}");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.len(), 6, "{out}\n{error}");
    assert!(
        lines[0].contains("\"name\":\"onnxruntime\""),
        "{}",
        lines[0]
    );
    let ids = |line: &str| -> Vec<String> {
        let answer: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let items = answer["items"].as_array().expect("items");
        let id = |item: &serde_json::Value| item["id"].as_str().expect("an id").to_owned();
        items.iter().map(id).collect()
    };
    assert_eq!(ids(lines[1]).len(), 3);
    assert_eq!(
        ids(lines[1]),
        ids(lines[2]),
        "the state answers like the whole history"
    );
    assert!(lines[1].contains("\"unknown_items\":[\"nowhere\"]"));
    assert!(lines[3].contains("bundle_sha256"), "{}", lines[3]);
    assert_eq!(lines[4], "cancelled: status 10, answer null");
    assert!(lines[5].starts_with("misspelt: status 1, question: unknown field `histroy`"));
}

#[test]
fn it_runs() {
    let example = compile(&[]);
    check(Command::new(&example.program));
}

/// Leaks and wrong accesses of the border. What ONNX Runtime and Rust's own start leave to the end
/// of the process is reachable and not counted.
#[test]
fn valgrind_finds_nothing() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("notice: no valgrind: the C example is not run under it");
        return;
    }
    let example = compile(&[]);
    let mut command = Command::new("valgrind");
    command
        .args(["--quiet", "--error-exitcode=9", "--leak-check=full"])
        .args([
            "--errors-for-leak-kinds=definite",
            "--show-leak-kinds=definite",
        ])
        .arg(format!("--suppressions={SUPPRESSIONS}"))
        .arg(&example.program);
    check(command);
}
