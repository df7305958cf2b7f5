//! The page on a small work directory.

use std::fs;

use scraper::{Html, Selector};
use serde_json::json;
use slmrec_core::evaluation::Ranking;

use super::testing::{HOSTILE, record, work_directory};
use super::*;
use crate::evaluate::rank_files::read_comparison;

fn page(work: &WorkDir) -> (Summary, String, Html) {
    let summary = write(work, None).expect("a report");
    let text = fs::read_to_string(&summary.path).expect("the page");
    let html = Html::parse_document(&text);
    (summary, text, html)
}

fn texts(html: &Html, selector: &str) -> Vec<String> {
    let selector = Selector::parse(selector).expect("a selector");
    let text = |element: scraper::ElementRef<'_>| element.text().collect::<String>();
    html.select(&selector).map(text).collect()
}

#[test]
fn every_row_and_every_pair_is_in_a_well_formed_page() {
    let dir = tempfile::tempdir().expect("temporary folder");
    work_directory(dir.path(), 90);
    let work = WorkDir::new(dir.path());
    let (summary, _, html) = page(&work);
    assert!(html.errors.is_empty(), "{:?}", html.errors);
    assert_eq!(summary.missing, []);
    assert_eq!(summary.stale, []);

    let rows = texts(&html, "#comparison tr, #figures tr");
    let comparison = read_comparison(&work.evaluation()).expect("comparison");
    for row in &comparison.rows {
        for ranking in Ranking::ALL {
            let figures = row.metrics.get(ranking).reported();
            let has = |text: &&String| {
                text.starts_with(&row.system)
                    && figures
                        .iter()
                        .all(|f| text.contains(&format!("{:.4}", f.mean)))
            };
            assert!(
                rows.iter().any(|text| has(&text)),
                "{} {ranking:?}",
                row.system
            );
        }
    }
    for pair in &comparison.paired {
        let either = |text: &&String| {
            text.starts_with(&format!("{}{}", pair.system, pair.reference))
                || text.starts_with(&format!("{}{}", pair.reference, pair.system))
        };
        let later = comparison
            .rows
            .iter()
            .position(|row| row.system == pair.system)
            > comparison
                .rows
                .iter()
                .position(|row| row.system == pair.reference);
        assert!(!later || rows.iter().any(|text| either(&text)), "{pair:?}");
    }
    // A metric and the terms of four trainings, the data's popularity, and the study of depths.
    assert_eq!(texts(&html, "figure svg").len(), 3 * 2 + 6 + 1 + 1);
    assert_eq!(texts(&html, "#groups table").len(), 2);
    assert_eq!(texts(&html, "#examples .card").len(), 8);
    assert!(texts(&html, "#bundle").concat().contains("median 1.25 ms"));
    assert!(texts(&html, "#repeat").concat().contains("train.epochs=3"));
    assert!(
        texts(&html, "#data")
            .concat()
            .contains("17 interactions (k 2, 1 rounds)")
    );
}

#[test]
fn titles_are_text_and_nothing_is_fetched() {
    let dir = tempfile::tempdir().expect("temporary folder");
    work_directory(dir.path(), 90);
    let (_, text, html) = page(&WorkDir::new(dir.path()));
    for outside in [
        "http://", "https://", "src=", "<script", "@import", "url(", "<link", "<iframe",
    ] {
        assert!(!text.contains(outside), "{outside}");
    }
    assert!(
        texts(&html, "script, b, i").is_empty(),
        "markup from a title"
    );
    assert!(texts(&html, "#examples").concat().contains(HOSTILE));
    assert!(texts(&html, "#data").concat().contains("<i>no time</i>"));
    assert!(texts(&html, "h1").concat().contains("tiny <data>"));
}

#[test]
fn cold_items_stand_there_or_the_command_does() {
    let dir = tempfile::tempdir().expect("temporary folder");
    work_directory(dir.path(), 90);
    let (_, _, html) = page(&WorkDir::new(dir.path()));
    let said = texts(&html, "#cold").concat();
    let parts = [
        "2 of 40 items kept out of training: 31 targets of 29 users (3 without a history",
        "0.04210.0321 to 0.0521",
        "0.16840.1584 to 0.1784",
        "map - cosine-0.0321",
        "ridge, strength 0.3, stretched",
        "38 items of student",
    ];
    for part in parts {
        assert!(said.contains(part), "{part}: {said}");
    }
    fs::remove_dir_all(dir.path().join("cold")).expect("removed");
    let (summary, _, html) = page(&WorkDir::new(dir.path()));
    assert_eq!(summary.missing, []);
    let said = texts(&html, "#cold").concat();
    assert!(
        said.contains("slmrec-distill cold --titles minilm"),
        "{said}"
    );
}

#[test]
fn studies_stand_there_or_their_commands_do() {
    let dir = tempfile::tempdir().expect("temporary folder");
    work_directory(dir.path(), 90);
    let (_, _, html) = page(&WorkDir::new(dir.path()));
    let said = texts(&html, "#studies").concat();
    for part in [
        "How deep must the student be?",
        "NDCG@10 by layers: ● CE only, ● distilled",
        "better, minus “CE only”",
        "worse, minus “CE only”",
        "what others are compared with",
        "12 s",
        "slmrec-distill study depth --readout",
        "slmrec-distill study blocks",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("slmrec-distill study losses"), "{said}");
    assert_eq!(texts(&html, "#studies figure svg").len(), 1);
    assert_eq!(texts(&html, "#studies td svg").len(), 3 + 4);

    // Another teacher: both studies are out of date, and what makes them again is named.
    let path = dir.path().join("teacher").join("stage.json");
    let text = fs::read_to_string(&path).expect("record");
    let hash = slmrec_core::hash::sha256_hex(b"teacher");
    fs::write(&path, text.replace(&hash, "other")).expect("record");
    let (summary, ..) = page(&WorkDir::new(dir.path()));
    let commands: Vec<&str> = summary.stale.iter().map(|s| s.command.as_str()).collect();
    for study in ["depth", "losses"] {
        let command = format!("slmrec-distill study {study} --work-dir");
        assert!(
            commands.iter().any(|c| c.starts_with(&command)),
            "{commands:?}"
        );
    }
}

#[test]
fn the_verdict_goes_by_what_was_measured() {
    for (student, decision, word) in [
        (95, Decision::Ship, "Yes"),
        (40, Decision::NotShown, "Not shown"),
        (5, Decision::DoNotShip, "No:"),
    ] {
        let dir = tempfile::tempdir().expect("temporary folder");
        work_directory(dir.path(), student);
        let (summary, _, html) = page(&WorkDir::new(dir.path()));
        assert_eq!(summary.verdict.decision, decision, "{student}");
        let said = texts(&html, "#verdict .decision").concat();
        assert!(said.starts_with(word), "{said}");
        assert_eq!(
            summary.verdict.system.as_deref(),
            Some("student, int8 bundle")
        );
    }
}

#[test]
fn what_was_not_made_is_named_with_its_command_and_not_invented() {
    let dir = tempfile::tempdir().expect("temporary folder");
    work_directory(dir.path(), 90);
    for gone in ["prior", "teacher", "student", "export", "evaluation"] {
        fs::remove_dir_all(dir.path().join(gone)).expect("removed");
    }
    let (summary, _, html) = page(&WorkDir::new(dir.path()));
    assert!(html.errors.is_empty(), "{:?}", html.errors);
    assert_eq!(summary.verdict.decision, Decision::Unknown);
    let said = texts(&html, "#missing").concat();
    for command in ["prior fit", "teach", "distill", "export", "evaluate"] {
        assert!(
            said.contains(&format!("slmrec-distill {command}")),
            "{said}"
        );
    }
    assert!(
        texts(
            &html,
            "#comparison td, #figures td, #groups td, #exposure td, .card"
        )
        .is_empty()
    );
    assert!(texts(&html, "#curves h3").contains(&"sasrec".to_owned()));
}

#[test]
fn an_evaluation_of_another_student_is_out_of_date() {
    let dir = tempfile::tempdir().expect("temporary folder");
    work_directory(dir.path(), 90);
    let path = dir.path().join("student").join("stage.json");
    let mut student: serde_json::Value =
        serde_json::from_slice(&fs::read(&path).expect("record")).expect("JSON");
    student["outputs"]["file"] = json!("other");
    fs::write(&path, student.to_string()).expect("record");
    let (summary, _, html) = page(&WorkDir::new(dir.path()));
    assert_eq!(
        summary.stale.len(),
        3,
        "cold, export and evaluation: {:?}",
        summary.stale
    );
    let said = texts(&html, "#stale").concat();
    assert!(said.contains("slmrec-distill evaluate"), "{said}");
}

#[test]
fn the_same_work_directory_gives_the_same_page() {
    let dir = tempfile::tempdir().expect("temporary folder");
    work_directory(dir.path(), 90);
    let work = WorkDir::new(dir.path());
    let (first, text, _) = page(&work);
    let (_, again, _) = page(&work);
    assert_eq!(text, again);
    assert_eq!(first.bytes, text.len());
}

#[test]
fn what_is_damaged_is_an_error_that_names_the_file() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let work = WorkDir::new(dir.path());
    let error = write(&work, None).expect_err("nothing there").to_string();
    assert!(
        error.contains("hint: run `slmrec-distill prepare"),
        "{error}"
    );
    work_directory(dir.path(), 90);
    record(
        dir.path(),
        "sasrec",
        &["dataset"],
        json!({ "epochs": "many" }),
        json!({}),
    );
    let error = write(&work, None).expect_err("other figures").to_string();
    assert!(
        error.contains("stage.json") && error.contains("hint:"),
        "{error}"
    );
    work_directory(dir.path(), 90);
    let ranks = dir.path().join("evaluation/ranks/SASRec.json");
    fs::write(&ranks, "{}").expect("damage");
    let error = write(&work, None).expect_err("no ranks").to_string();
    assert!(
        error.contains("SASRec.json") && error.contains("hint:"),
        "{error}"
    );
    assert!(!dir.path().join(REPORT_FILE).exists());
}
