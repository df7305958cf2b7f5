//! `tune` searches within its budget, goes on where it was, and leaves settings that can be used.

use std::fs;
use std::path::Path;

use crate::json;
use crate::support::run_well;

pub(crate) fn searches_and_goes_on(folder: &Path) {
    let tune = |subject: &str, minutes: &str| {
        let line = [
            &["tune", subject, "--minutes", minutes, "--format", "json"][..],
            &[
                "--config",
                "pipeline.toml",
                "--set",
                "pretrain.train.epochs=2",
            ],
            &["--set", "baselines.gru4rec.train.epochs=1"],
        ]
        .concat();
        json(&run_well("slmrec-distill", folder, &line))
    };
    // The smallest budget is one training: the settings as they are.
    let first = tune("sasrec", "0.0001");
    assert_eq!(first["trials"].as_array().map(Vec::len), Some(1), "{first}");
    assert_eq!((&first["best"], &first["start"]), (&0.into(), &0.into()));
    // More of it goes on behind that one.
    let spent = first["seconds"].as_f64().expect("seconds");
    let more = tune("sasrec", &format!("{}", (spent + 0.01) / 60.0));
    let trials = more["trials"].as_array().expect("trials");
    assert_eq!(trials[0], first["trials"][0]);
    assert_eq!(trials.len(), 2, "{more}");
    assert_eq!(
        (&trials[1]["number"], &trials[1]["epochs"]),
        (&1.into(), &1.into())
    );
    assert!(trials[1]["settings"]["pretrain.train.learning_rate"].is_f64());
    // Baselines are searched by the same command.
    let baseline = tune("gru4rec", "0.0001");
    assert_eq!(baseline["trials"][0]["epochs"], 1);

    let found = folder.join("slmrec-work/tuning/sasrec/settings.toml");
    let found = found.to_str().expect("UTF-8").to_owned();
    let settings = run_well("slmrec-distill", folder, &["settings", "--config", &found]);
    assert!(settings.contains("epochs = 2"), "{settings}");
    // Weights of trials are not kept.
    let folders = fs::read_dir(folder.join("slmrec-work/tuning/sasrec")).expect("a folder");
    let left: Vec<String> = folders
        .map(|e| {
            e.expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .filter(|name| name.starts_with("trial-"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
