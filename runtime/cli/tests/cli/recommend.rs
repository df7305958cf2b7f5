//! What `slmrec-run history.json` prints.

use insta::assert_snapshot;
use serde_json::Value;

use crate::fixture::{bare, failure, fixture, onnxruntime, stdout, with_bundle};

fn json(command: &mut assert_cmd::Command) -> Value {
    serde_json::from_str(&stdout(command.args(["--format", "json"]))).expect("JSON")
}

fn items(result: &Value) -> Vec<&str> {
    let list = result["recommendations"].as_array().expect("list");
    list.iter()
        .map(|r| r["item"].as_str().expect("id"))
        .collect()
}

#[test]
fn table() {
    let history = fixture().history("table.json", r#"["item-3","item-8","no-such-item"]"#);
    let mut command = with_bundle("fp32");
    let command = command.arg(history).args(["-k", "3"]);
    assert_snapshot!(stdout(command), @r#"
    ┌──────┬─────────┬────────────────────┬───────┐
    │ Rank ┆ Item    ┆ Title              ┆ Score │
    ╞══════╪═════════╪════════════════════╪═══════╡
    │    1 ┆ item-27 ┆ The item in row 27 ┆ 2.006 │
    │    2 ┆ item-2  ┆ The item in row 2  ┆ 1.882 │
    │    3 ┆ item-25 ┆ The item in row 25 ┆ 1.449 │
    └──────┴─────────┴────────────────────┴───────┘
    "#);
    let talk = String::from_utf8(command.output().expect("runs").stderr).expect("UTF-8");
    assert!(
        talk.contains("skipped items that the catalog does not have: \"no-such-item\""),
        "{talk}"
    );
    assert!(talk.contains("engine: onnxruntime"), "{talk}");
}

#[test]
fn json_of_several_users() {
    let history = fixture().history(
        "users.json",
        r#"[{"user": "u1", "history": ["item-3", "item-8", "gone"]},
            {"history": [{"item": "item-8", "time": 2}, {"item": "item-3", "time": 1}]}]"#,
    );
    let mut report = json(with_bundle("fp32").arg(history).args(["-k", "2"]));
    report["engine"]["version"] = "[version]".into();
    for time in report["timing_ms"]
        .as_object_mut()
        .expect("times")
        .values_mut()
    {
        assert!(time.is_number());
        *time = "[ms]".into();
    }
    for result in report["results"].as_array_mut().expect("results") {
        for row in result["recommendations"].as_array_mut().expect("rows") {
            let score = row["score"].as_f64().expect("score");
            row["score"] = format!("{score:.3}").into();
        }
    }
    assert_snapshot!(serde_json::to_string_pretty(&report).expect("JSON"), @r#"
    {
      "bundle": {
        "base": "random",
        "created_by": "slmrec-export 0.1.0",
        "data": "tiny",
        "format_version": 1,
        "items": 30,
        "max_history": 6,
        "precision": "fp32",
        "readout": "item"
      },
      "engine": {
        "encoder": "encoder.fp32.onnx",
        "name": "onnxruntime",
        "precision": "fp32",
        "provider": "cpu",
        "threads": 1,
        "version": "[version]"
      },
      "results": [
        {
          "recommendations": [
            {
              "categories": [
                "third"
              ],
              "item": "item-27",
              "rank": 1,
              "score": "2.006",
              "title": "The item in row 27"
            },
            {
              "categories": [
                "even"
              ],
              "item": "item-2",
              "rank": 2,
              "score": "1.882",
              "title": "The item in row 2"
            }
          ],
          "unknown_items": [
            "gone"
          ],
          "used_items": 2,
          "user": "u1"
        },
        {
          "recommendations": [
            {
              "categories": [
                "third"
              ],
              "item": "item-27",
              "rank": 1,
              "score": "2.006",
              "title": "The item in row 27"
            },
            {
              "categories": [
                "even"
              ],
              "item": "item-2",
              "rank": 2,
              "score": "1.882",
              "title": "The item in row 2"
            }
          ],
          "unknown_items": [],
          "used_items": 2,
          "user": null
        }
      ],
      "timing_ms": {
        "encode": "[ms]",
        "lookup": "[ms]",
        "open": "[ms]",
        "rank": "[ms]",
        "recommend": "[ms]",
        "score": "[ms]"
      }
    }
    "#);
}

#[test]
fn every_form_of_a_history_gives_the_same() {
    let forms = [
        r#"["item-3","item-8"]"#,
        r#"{"history": ["item-3","item-8"]}"#,
        r#"{"user": null, "history": [{"item":"item-8","time":9},{"item":"item-3","time":1.5}]}"#,
        r#"[{"history": ["item-3","item-8"]}]"#,
    ];
    let answers =
        forms.map(|form| json(with_bundle("fp32").arg("-").write_stdin(form))["results"].clone());
    for answer in &answers {
        assert_eq!(answer, &answers[0]);
    }
}

#[test]
fn engines_agree() {
    let history = fixture().history("agree.json", r#"["item-3","item-8","item-20"]"#);
    let run = |bundle: &str, engine: &str| {
        let mut command = with_bundle(bundle);
        let report = json(command.arg(&history).args(["--engine", engine]));
        assert_eq!(report["engine"]["name"], engine);
        assert_eq!(report["engine"]["provider"], "cpu");
        report
    };
    let (ours, theirs) = (run("fp32", "onnxruntime"), run("fp32", "tract"));
    assert_eq!(items(&ours["results"][0]), items(&theirs["results"][0]));
    // Of two graphs tract takes the one that is for any engine.
    assert_eq!(run("portable", "tract")["engine"]["precision"], "fp16");
    assert_eq!(
        run("portable", "onnxruntime")["engine"]["precision"],
        "int8"
    );
}

#[test]
fn filters() {
    let history = fixture().history("filters.json", r#"["item-3","item-8"]"#);
    let allow = fixture().history("allow.txt", "item-3\nitem-1\n\nitem-2\nitem-99\n");
    let mut command = with_bundle("fp32");
    let command = command.arg(&history).arg("--allow-file").arg(allow).args([
        "--block",
        "item-2",
        "--include-seen",
    ]);
    let report = json(command);
    let mut left = items(&report["results"][0]);
    left.sort_unstable();
    assert_eq!(left, ["item-1", "item-3"]);
    assert_eq!(report["results"][0]["shortfall"], 8);
    assert_eq!(report["results"][0]["unknown_filter_items"][0], "item-99");
}

#[test]
fn categories() {
    let history = fixture().history("categories.json", r#"["item-3","item-8"]"#);
    let run = |arguments: &[&str]| {
        let mut command = with_bundle("fp32");
        let command = command.arg(&history).args(["-k", "30"]).args(arguments);
        json(command)["results"][0].clone()
    };
    // Rows that two divide are even, those that three divides third.
    let rows = |result: &Value| -> Vec<u32> {
        let number = |id: &str| id.strip_prefix("item-").expect("id").parse::<u32>();
        let mut rows: Vec<u32> = (items(result).iter())
            .map(|id| number(id).expect("a row"))
            .collect();
        rows.sort_unstable();
        rows
    };
    let third = run(&["--category", "third"]);
    assert_eq!(rows(&third), [6, 9, 12, 15, 18, 21, 24, 27, 30]);
    assert_eq!(third["shortfall"], 21);
    for row in third["recommendations"].as_array().expect("rows") {
        let even = rows(&serde_json::json!({ "recommendations": [row] }))[0].is_multiple_of(2);
        let expected: &[&str] = if even { &["even", "third"] } else { &["third"] };
        assert_eq!(row["categories"], serde_json::json!(expected));
    }
    let neither = run(&["--block-category", "even", "--block-category", "third"]);
    for row in neither["recommendations"].as_array().expect("rows") {
        assert_eq!(row.get("categories"), None);
    }
    let odd = run(&[
        "--category",
        "third",
        "--category",
        "none",
        "--block-category",
        "even",
    ]);
    assert_eq!(rows(&odd), [9, 15, 21, 27]);
    assert_eq!(odd["unknown_categories"], serde_json::json!(["none"]));
    let nothing = run(&["--category", "Third"]);
    assert!(rows(&nothing).is_empty());
    assert_eq!(nothing["shortfall"], 30);
    let mut command = with_bundle("fp32");
    let command = command.arg(&history).args(["--block-category", "Even"]);
    let talk = command.assert().success().get_output().stderr.clone();
    let talk = String::from_utf8(talk).expect("UTF-8");
    assert!(
        talk.contains("categories that no item has: \"Even\""),
        "{talk}"
    );
}

#[test]
fn lists_on_the_command_line_and_in_files_are_one() {
    let history = fixture().history("lists.json", r#"["item-3","item-8"]"#);
    let block = fixture().history("block.txt", "item-2\n item-25 \n");
    let mut command = with_bundle("fp32");
    let report = json(
        command
            .arg(&history)
            .args(["-k", "9", "--block", "item-27", "--block-file"])
            .arg(block)
            .args(
                ["item-1", "item-2", "item-25", "item-27"]
                    .iter()
                    .flat_map(|id| ["--allow", id]),
            ),
    );
    assert_eq!(items(&report["results"][0]), ["item-1"]);
    assert_eq!(report["results"][0]["shortfall"], 8);
}

#[test]
fn given_items_are_ranked_as_the_catalog_ranks_them() {
    let history = fixture().history("score.json", r#"["item-3","item-8"]"#);
    let mut command = with_bundle("fp32");
    let all = json(command.arg(&history).args(["-k", "99", "--include-seen"]));
    let all = all["results"][0]["recommendations"]
        .as_array()
        .expect("list")
        .clone();
    let file = fixture().history("candidates.txt", "item-25\nitem-3\nnobody\n");
    let mut command = with_bundle("fp32");
    let command = command
        .arg(&history)
        .args(["--score", "item-1", "--score", "item-25"]);
    let report = json(command.arg("--score-file").arg(file));
    let result = &report["results"][0];
    let expected: Vec<&Value> = (all.iter())
        .filter(|row| {
            ["item-1", "item-3", "item-25"]
                .iter()
                .any(|id| row["item"] == *id)
        })
        .collect();
    let found = result["recommendations"].as_array().expect("list");
    assert_eq!(found.len(), 3);
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(
            (&found["item"], &found["score"]),
            (&expected["item"], &expected["score"])
        );
    }
    assert_eq!(result["unknown_candidates"][0], "nobody");
    let both = failure(
        with_bundle("fp32")
            .arg(&history)
            .args(["--score", "a", "-k", "3"]),
        1,
    );
    assert!(both.contains("cannot be used with"), "{both}");
}

#[test]
fn reasons_name_items_of_the_history() {
    let history = fixture().history("explain.json", r#"["item-3","item-8","item-20"]"#);
    let mut command = with_bundle("fp32");
    let report = json(command.arg(&history).args(["-k", "4", "--explain"]));
    let rows = report["results"][0]["recommendations"]
        .as_array()
        .expect("list");
    let reasons: Vec<&Value> = (rows.iter())
        .flat_map(|row| row["reasons"].as_array().expect("reasons"))
        .collect();
    assert!(!reasons.is_empty());
    for reason in reasons {
        let of_the_history = ["item-3", "item-8", "item-20"]
            .iter()
            .any(|id| reason["item"] == *id);
        assert!(
            of_the_history && reason["drop"].as_f64() > Some(0.0),
            "{reason}"
        );
    }
    let mut command = with_bundle("fp32");
    let table = stdout(command.arg(&history).args(["-k", "4", "--explain"]));
    assert!(
        table.contains("Because of") && table.contains("The item in row"),
        "{table}"
    );
}

#[test]
fn popularity_is_offered_on_request_and_marked() {
    let users = r#"[{"user":"new","history":[]},{"user":"old","history":["item-3"]}]"#;
    let error = failure(with_bundle("fp32").arg("-").write_stdin(users), 1);
    let last: Vec<&str> = error.lines().rev().take(2).collect();
    assert_eq!(last[1], "error: -: user \"new\": the history is empty");
    assert_eq!(last[0], "  hint: --popular offers popular items instead");
    let report = json(
        with_bundle("fp32")
            .args(["-", "--popular"])
            .write_stdin(users),
    );
    let results = &report["results"];
    assert_eq!(results[0]["popular"], true);
    assert_eq!(results[0]["recommendations"][0]["score"], Value::Null);
    assert_eq!(results[1]["popular"], Value::Null);
    assert!(results[1]["recommendations"][0]["score"].is_number());
}

#[test]
fn auto_without_onnx_runtime_is_tract_and_says_so() {
    // Away from the checkout, where `cargo xtask setup` may have put the library.
    let folder = tempfile::tempdir().expect("temporary folder");
    let program = folder.path().join("slmrec-run");
    let built = assert_cmd::cargo::cargo_bin!("slmrec-run");
    // Copied by another process: were the copy open for writing here while another test forks, it
    // could not be started ("text file busy").
    let copied = std::process::Command::new("cp")
        .arg(built)
        .arg(&program)
        .status();
    assert!(copied.expect("cp runs").success());
    let mut command = assert_cmd::Command::new(program);
    command
        .env_clear()
        .env("SLMREC_BUNDLE", fixture().bundle("fp32"))
        .arg("-")
        .write_stdin(r#"["item-3"]"#);
    let output = command.output().expect("runs");
    let talk = String::from_utf8_lossy(&output.stderr).into_owned();
    if talk.contains("engine: onnxruntime") {
        eprintln!("not checked: ONNX Runtime is among this system's libraries");
        return;
    }
    assert!(output.status.success(), "{talk}");
    assert!(
        talk.contains("notice: the engine is tract, because ONNX Runtime was not found"),
        "{talk}"
    );
    assert!(talk.contains("engine: tract"), "{talk}");
}

#[test]
fn the_bundle_of_the_current_directory_is_the_last_choice() {
    let folder = tempfile::tempdir().expect("temporary folder");
    std::fs::copy(
        fixture().bundle("fp32"),
        folder.path().join("student.slmrec"),
    )
    .expect("copy");
    let mut command = bare();
    command
        .current_dir(folder.path())
        .env("ORT_DYLIB_PATH", onnxruntime())
        .arg("-")
        .write_stdin(r#"["item-3"]"#);
    stdout(&mut command);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let history = fixture().history("pipe.json", r#"["item-3"]"#);
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin!("slmrec-run"))
        .arg(history)
        .env("SLMREC_BUNDLE", fixture().bundle("fp32"))
        .env("ORT_DYLIB_PATH", onnxruntime())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("starts");
    drop(child.stdout.take());
    assert!(child.wait().expect("ends").success());
}

#[test]
fn completions_name_the_commands() {
    let script = stdout(bare().args(["completions", "bash"]));
    assert!(script.contains("evaluate") && script.contains("--include-seen"));
}

/// The variable must be there before ONNX Runtime is loaded, so before anything else happens: the
/// process is looked at while it waits for its standard input.
#[cfg(target_os = "linux")]
#[test]
fn telemetry_is_off_before_anything_is_read() {
    let mut child = std::process::Command::new(assert_cmd::cargo::cargo_bin!("slmrec-run"))
        .arg("-")
        .env_remove("ORT_DISABLE_TELEMETRY")
        .env("SLMREC_BUNDLE", fixture().bundle("fp32"))
        .env("ORT_DYLIB_PATH", onnxruntime())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("starts");
    let environment = format!("/proc/{}/environ", child.id());
    let is_set = || {
        let bytes = std::fs::read(&environment).unwrap_or_default();
        bytes
            .split(|&b| b == 0)
            .any(|v| v == b"ORT_DISABLE_TELEMETRY=1")
    };
    let started = std::time::Instant::now();
    while !is_set() && started.elapsed().as_secs() < 30 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let off = is_set();
    let mut stdin = child.stdin.take().expect("piped");
    std::io::Write::write_all(&mut stdin, br#"["item-3"]"#).expect("writes");
    drop(stdin);
    let output = child.wait_with_output().expect("ends");
    assert!(off, "ORT_DISABLE_TELEMETRY=1 is not in the environment");
    assert!(output.status.success() && !output.stdout.is_empty());
}
