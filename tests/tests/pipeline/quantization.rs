//! `export --int8` measures what it writes, and refuses what ranks badly.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::json;
use crate::support::{run, run_well};

const SETTINGS: [&str; 2] = ["--config", "pipeline.toml"];

pub(crate) fn is_chosen_by_ranking(folder: &Path) {
    the_certificate_is_in_the_bundle(folder);
    all_forms_are_measured_where_asked(folder);
    if cfg!(unix) {
        a_form_that_ranks_badly_is_refused(folder);
    }
}

fn the_certificate_is_in_the_bundle(folder: &Path) {
    let inspect = ["inspect", "--format", "json"];
    let inspected = json(&run_well("slmrec-run", folder, &inspect));
    let certificate = &inspected["manifest"]["certificate"];
    assert_eq!(certificate["split"], "validation");
    assert_eq!(certificate["users"], 500);
    assert_eq!(certificate["chosen"]["quantization"], "dynamic");
    assert_eq!(certificate["chosen"]["item_rows"], "int8");
    let figure = |name: &str| certificate["chosen"][name].as_f64().expect(name);
    assert!(figure("ndcg_10") > 0.0 && figure("ms") > 0.0 && figure("bytes") > 0.0);
    let overlap = figure("overlap_10");
    assert!(overlap > 0.5 && overlap <= 1.0, "{overlap}");
    let table = run_well("slmrec-run", folder, &["inspect"]);
    assert!(
        table.contains("dynamic, int8 item rows: NDCG@10"),
        "{table}"
    );
    // What has counted the validation items may not be measured on them.
    let dataset = ["evaluate", "--dataset", "slmrec-work/dataset"];
    let validation = [&dataset[..], &["--split", "validation"]].concat();
    let refused = run("slmrec-run", folder, &validation);
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("hint: leave it out (--no-prior)"), "{said}");
    run_well(
        "slmrec-run",
        folder,
        &[&validation[..], &["--no-prior"]].concat(),
    );
}

fn all_forms_are_measured_where_asked(folder: &Path) {
    let all = [
        "export",
        "--all-forms",
        "--four-bits",
        "-o",
        "all.slmrec",
        "--format",
        "json",
    ];
    let figures = json(&run_well(
        "slmrec-distill",
        folder,
        &[&all[..], &SETTINGS].concat(),
    ));
    let certificate = &figures["certificate"];
    let form = |form: &Value| {
        let text = |name: &str| form[name].as_str().expect(name).to_owned();
        (text("quantization"), text("item_rows"))
    };
    let others = certificate["others"].as_array().expect("forms");
    let mut forms: Vec<_> = others.iter().map(form).collect();
    forms.push(form(&certificate["chosen"]));
    forms.sort_unstable();
    forms.dedup();
    assert_eq!(forms.len(), 10, "{forms:?}");
    let bytes = |quantization: &str| {
        let mut all = others.iter().chain([&certificate["chosen"]]);
        let form = all.find(|f| f["quantization"] == quantization);
        form.and_then(|f| f["bytes"].as_u64()).expect(quantization)
    };
    assert!(bytes("blocks-4") < bytes("dynamic"), "{certificate}");
    // In 32-bit arithmetic eight bits of weights cost next to nothing.
    let exact = others
        .iter()
        .find(|f| f["quantization"] == "weights-only" && f["item_rows"] == "f16");
    let difference = exact.expect("measured")["difference"]["mean"].as_f64();
    assert!(difference.expect("a mean").abs() < 0.02, "{certificate}");
}

/// A stand-in for `slmrec-run` that ranks the first bundle well and every other one badly.
fn a_form_that_ranks_badly_is_refused(folder: &Path) {
    let script = r#"#!/bin/sh
if [ -e measured ]; then rank=9; else rank=1; touch measured; fi
echo "{\"user_indices\":[0,1],\"latency_ms\":{\"median\":1,\"p90\":1},\"lists\":[[\"a\"],[\"b\"]],
 \"ranks\":{\"seen_removed\":[$rank,$rank],\"seen_kept\":[1,1],\"sampled\":[1,1]}}"
"#;
    let path = folder.join("ranks-badly");
    fs::write(&path, script).expect("a script");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let executable = fs::Permissions::from_mode(0o755);
        fs::set_permissions(&path, executable).expect("executable");
    }
    let export = [
        "export",
        "-o",
        "refused.slmrec",
        "--runner",
        "./ranks-badly",
    ];
    let refused = run("slmrec-distill", folder, &[&export[..], &SETTINGS].concat());
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(
        said.contains("expected a quantized bundle that loses at most 50.0 %"),
        "{said}"
    );
    assert!(
        said.contains("hint: --fp16, or allow more with --max-ndcg-drop"),
        "{said}"
    );
    assert!(!folder.join("refused.slmrec").exists());
}
