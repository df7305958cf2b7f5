//! `cargo xtask proto`: the Rust types of ONNX, generated from its protobuf schema without protoc.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::workspace;

const SCHEMA: &str = "export/proto/onnx.proto";
const GENERATED: &str = "export/src/onnx.rs";
/// Regenerate `export/src/onnx.rs` from `export/proto/onnx.proto`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: cargo xtask proto --check")]
pub(crate) struct Arguments {
    /// Fail when the committed file differs, and write nothing
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let root = workspace::root();
    let fresh = generate(&root.join(SCHEMA))?;
    let committed = root.join(GENERATED);
    if arguments.check {
        let text = fs::read_to_string(&committed).with_context(|| GENERATED.to_owned())?;
        return check(&text, &fresh);
    }
    fs::write(&committed, fresh).with_context(|| GENERATED.to_owned())?;
    eprintln!("proto: wrote {GENERATED}");
    Ok(())
}

fn generate(schema: &Path) -> Result<String> {
    let folder = schema.parent().context("the schema has no folder")?;
    let descriptors =
        protox::compile([schema], [folder]).with_context(|| schema.display().to_string())?;
    let out = tempfile::tempdir()?;
    prost_build::Config::new()
        .out_dir(out.path())
        .default_package_filename("onnx")
        // The schema beside it has them, and they are not written for rustdoc.
        .disable_comments(["."])
        .compile_fds(descriptors)?;
    fs::read_to_string(out.path().join("onnx.rs"))
        .context("the schema should declare the package `onnx`")
}

fn check(committed: &str, fresh: &str) -> Result<()> {
    let differs = |(line, (a, b)): (usize, (&str, &str))| (a != b).then_some(line + 1);
    if committed == fresh {
        return Ok(());
    }
    let first = committed
        .lines()
        .zip(fresh.lines())
        .enumerate()
        .find_map(differs);
    let line = first.unwrap_or_else(|| committed.lines().count().min(fresh.lines().count()) + 1);
    bail!("{GENERATED}:{line}: differs from what {SCHEMA} gives; hint: cargo xtask proto")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_schema_fails_the_check() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let schema = dir.path().join("onnx.proto");
        let mut text =
            "syntax = \"proto2\";\npackage onnx;\nmessage A { optional int64 a = 1; }\n".to_owned();
        fs::write(&schema, &text).expect("written");
        let old = generate(&schema).expect("generated");
        assert!(old.contains("pub struct A"));
        check(&old, &generate(&schema).expect("generated")).expect("nothing changed");

        text.push_str("message B { optional int64 b = 1; }\n");
        fs::write(&schema, &text).expect("written");
        let error = check(&old, &generate(&schema).expect("generated")).expect_err("changed");
        assert!(error.to_string().contains("cargo xtask proto"), "{error}");
    }
}
