//! What a person reads when something is wrong.

use std::fs;

use insta::assert_snapshot;

use crate::fixture::{bare, failure, fixture, onnxruntime, with_bundle};

/// The error alone, without the talk before it.
fn error(text: &str) -> &str {
    text.split_once("error: ").expect("an error").1
}

#[test]
fn no_bundle() {
    let text = failure(bare().arg("-").write_stdin(r#"["item-3"]"#), 1);
    assert_snapshot!(text, @r#"
    error: no bundle: --bundle was not given, SLMREC_BUNDLE is not set, and there is no student.slmrec in the current directory
      hint: `slmrec-distill export --int8` writes student.slmrec
    "#);
}

#[test]
fn missing_bundle() {
    let mut command = bare();
    command.args(["-", "--bundle", "no-such.slmrec"]);
    assert_snapshot!(failure(command.write_stdin(r#"["item-3"]"#), 1), @r#"error: no-such.slmrec: No such file or directory (os error 2)"#);
    let mut command = bare();
    command
        .env("SLMREC_BUNDLE", "elsewhere.slmrec")
        .arg("inspect");
    assert_snapshot!(failure(&mut command, 1), @r#"error: elsewhere.slmrec: no such bundle (named by SLMREC_BUNDLE)"#);
}

#[test]
fn truncated_bundle() {
    let whole = fs::read(fixture().bundle("fp32")).expect("bundle");
    let cut = fixture().bundle("cut");
    for length in [0, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&cut, &whole[..length]).expect("cut");
        let text = failure(bare().arg("inspect").arg("--bundle").arg(&cut), 1);
        assert!(text.contains("cut.slmrec: not a readable bundle"), "{text}");
    }
}

#[test]
fn damaged_bundle() {
    let mut bytes = fs::read(fixture().bundle("fp32")).expect("bundle");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let damaged = fixture().bundle("damaged");
    fs::write(&damaged, &bytes).expect("damage");
    let mut command = with_bundle("fp32");
    let text = failure(command.arg("verify").arg("--bundle").arg(&damaged), 1);
    assert!(error(&text).contains("damaged.slmrec: member"), "{text}");
}

#[test]
fn histories_that_are_none() {
    let mut texts = String::new();
    for json in [
        "",
        "[1,",
        "17",
        r#"["item-3", ["item-8"]]"#,
        r#"[{"history": ["item-3"]}, {"history": 5}]"#,
        r#"{"histories": []}"#,
        r#"{"history": [{"item":"item-3","time":1},{"item":"item-8"}]}"#,
        "[]",
        r#"["x","y"]"#,
    ] {
        let text = failure(with_bundle("fp32").arg("-").write_stdin(json), 1);
        texts.push_str(error(&text));
    }
    assert_snapshot!(texts, @r#"
    -: not valid JSON: EOF while parsing a value at line 1 column 0
    -: not valid JSON: EOF while parsing a value at line 1 column 3
    -: document: expected a list or an object, found 17
    -: [1]: expected a string or an integer, found ["item-8"]
    -: [1].history: expected a list, found 5
    -: document: expected an object with "history", found {"histories":[]}
    -: .history[1]: has no "time" while other entries of this history have one
    -: the history is empty
      hint: --popular offers popular items instead
    -: none of the 2 items of the history is in the catalog (first: "x")
      hint: --popular offers popular items instead
    "#);
    let text = failure(with_bundle("fp32").arg("no-such.json"), 1);
    assert!(
        error(&text).starts_with("no-such.json: No such file"),
        "{text}"
    );
}

#[test]
fn a_history_file_has_a_limit() {
    let path = fixture().path("huge.json");
    let file = fs::File::create(&path).expect("file");
    file.set_len((64 << 20) + 1).expect("sparse");
    let text = failure(with_bundle("fp32").arg(&path), 1);
    assert_snapshot!(text, @r#"error: [FOLDER]/huge.json: expected at most 67108864 bytes, found more"#);
}

#[test]
fn a_library_that_is_none() {
    let fake = fixture().history("libonnxruntime.so.1.99.0", "not a library");
    for engine in ["auto", "onnxruntime"] {
        let mut command = with_bundle("fp32");
        command.arg("-").write_stdin(r#"["item-3"]"#);
        command
            .arg("--onnxruntime")
            .arg(&fake)
            .args(["--engine", engine]);
        let text = failure(&mut command, 1);
        assert!(
            error(&text).contains("1.99.0: not a usable ONNX Runtime library"),
            "{text}"
        );
        assert!(text.contains("\n  hint: "), "{text}");
    }
    let mut command = with_bundle("fp32");
    command.env("ORT_DYLIB_PATH", "/no/such/libonnxruntime.so");
    let text = failure(command.arg("-").write_stdin(r#"["item-3"]"#), 1);
    assert!(
        error(&text).contains("/no/such/libonnxruntime.so: not a usable"),
        "{text}"
    );
}

#[test]
fn a_provider_that_is_absent() {
    let mut command = with_bundle("fp32");
    command.arg("-").write_stdin(r#"["item-3"]"#);
    let text = failure(command.args(["--provider", "coreml"]), 1);
    let library = onnxruntime().display().to_string();
    assert_snapshot!(text.replace(&library, "[LIBRARY]"), @r#"
    error: execution provider coreml is not in ONNX Runtime [LIBRARY]: expected one of cpu
      hint: use --provider auto, or an ONNX Runtime built with it
    "#);
    for provider in ["cuda", "xnnpack"] {
        for engine in ["onnxruntime", "tract"] {
            let mut command = with_bundle("fp32");
            command.arg("-").write_stdin(r#"["item-3"]"#);
            command.args(["--provider", provider, "--engine", engine]);
            let text = failure(&mut command, 1);
            assert!(
                error(&text).contains(&format!("execution provider {provider}")),
                "{text}"
            );
        }
    }
}

#[test]
fn an_int8_graph_for_tract() {
    let mut command = with_bundle("int8");
    command.arg("-").write_stdin(r#"["item-3"]"#);
    assert_snapshot!(failure(command.args(["--engine", "tract"]), 1), @r#"
    error: the bundle has no encoder for the engine tract: expected a graph for any engine, found only graphs for onnxruntime (encoder.int8.onnx)
      hint: install ONNX Runtime (`cargo xtask setup`), or export with --fp16 or --portable
    "#);
}

#[test]
fn mistakes_on_the_command_line_are_the_users() {
    let nothing = failure(&mut bare(), 1);
    assert!(nothing.contains("<HISTORY>"), "{nothing}");
    failure(bare().args(["-", "-k", "0"]), 1);
    failure(bare().args(["-", "--engine", "abacus"]), 1);
    failure(bare().args(["evaluate"]), 1);
}
