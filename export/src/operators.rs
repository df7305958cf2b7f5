//! Which operators the graphs of a bundle use, for who builds an ONNX Runtime with nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use prost::Message as _;
use slmrec_core::Bundle;

use crate::error::{ExportError, content};
use crate::onnx::ModelProto;

/// Operators by domain and operator set.
type Operators = BTreeMap<(String, i64), BTreeSet<String>>;

/// The operators of all graphs of a bundle as ONNX Runtime's reduced-operator configuration: lines
/// `domain;operator set;operators`, for the option `--include_ops_by_config` of its build script.
///
/// They are those of the files. At its higher optimisation levels ONNX Runtime puts fused operators
/// of its own in their place; a reduced build has them only where they are added by hand.
///
/// # Errors
/// A bundle that cannot be read, or a graph in it that is not ONNX.
pub fn required_operators(bundle: &Path) -> Result<String, ExportError> {
    let mut opened = Bundle::open(bundle)?;
    let mut operators = Operators::new();
    for entry in opened.manifest().encoders.clone() {
        let bytes = opened.member(&entry.member)?;
        let model = ModelProto::decode(bytes.as_slice()).map_err(|error| {
            let found = format!("{}: {error}", entry.member);
            content(bundle, "graphs in ONNX", found)
        })?;
        collect(&model, &mut operators);
    }
    let line = |((domain, set), names): (&(String, i64), &BTreeSet<String>)| {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        format!("{domain};{set};{}\n", names.join(","))
    };
    Ok(operators.iter().map(line).collect())
}

/// Adds the operators of a model; our graphs have no graphs inside their nodes.
fn collect(model: &ModelProto, operators: &mut Operators) {
    let sets: BTreeMap<&str, i64> = (model.opset_import.iter())
        .map(|import| (import.domain(), import.version()))
        .collect();
    for node in model.graph.iter().flat_map(|graph| &graph.node) {
        let set = sets.get(node.domain()).copied().unwrap_or_default();
        let domain = match node.domain() {
            "" => "ai.onnx",
            other => other,
        };
        operators
            .entry((domain.to_owned(), set))
            .or_default()
            .insert(node.op_type().to_owned());
    }
}

#[cfg(test)]
mod tests {
    use slmrec_core::manifest::Precision;

    use super::*;
    use crate::testing::{TinyCheckpoint, tiny_dataset};
    use crate::{ExportOptions, export};

    #[test]
    fn a_portable_bundle_needs_the_operators_of_both_graphs() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = |name: &str| folder.path().join(name);
        tiny_dataset().write(&path("data")).expect("dataset");
        TinyCheckpoint::item().write(&path("model"), &path("data"));
        let lines = |precision, portable| {
            let options = ExportOptions {
                precision,
                portable,
                ..ExportOptions::default()
            };
            let bundle = path("student.slmrec");
            export(&path("model"), &path("data"), &options, &bundle).expect("exports");
            required_operators(&bundle).expect("a configuration")
        };
        let floats = lines(Precision::Fp32, false);
        assert!(floats.starts_with("ai.onnx;17;Add,"), "{floats}");
        assert!(floats.contains(",MatMul,") && !floats.contains("MatMulInteger"));
        assert_eq!(floats.lines().count(), 1);
        let both = lines(Precision::Int8, true);
        for operator in ["MatMul,", "MatMulInteger", "DynamicQuantizeLinear"] {
            assert!(both.contains(operator), "{operator}: {both}");
        }
    }

    #[test]
    fn a_file_that_is_no_bundle_is_refused() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("x.slmrec");
        std::fs::write(&path, "no bundle").expect("written");
        assert!(required_operators(&path).is_err());
    }
}
