//! Every refusal names file, line, what was expected and what was found.

use super::*;

#[test]
fn bad_lines_end_the_run_or_are_counted() {
    let folder = Folder::new();
    let source = folder.file("c.csv", "user,item,time\nu,a,1\nu,b\nu,,3\nu,c,x\nu,d,2\n");
    let error = refusal(&source, &PrepareSettings::default());
    assert!(matches!(&error, DataError::Line { line: 3, .. }), "{error}");
    let (dataset, report) = run(&source, &settings(|s| s.skip_bad_lines = true));
    assert_eq!(sequences(&dataset), "u:a,d");
    assert_eq!((report.bad_lines.count, report.source.rows), (3, 5));
    assert!(
        report.bad_lines.examples[2].starts_with("line 5: column \"time\""),
        "{report}"
    );
    let source = folder.file("all.csv", "user,item,time\nu,a,x\n");
    let error = refusal(&source, &settings(|s| s.skip_bad_lines = true));
    assert!(matches!(&error, DataError::NothingLeft { filter, .. } if filter == "skip_bad_lines"));
}

/// Name, content and what the message must say.
const REFUSALS: &[(&str, &str, &str)] = &[
    ("empty.csv", "", "empty file"),
    ("blank.csv", "\n  \n", "empty file"),
    ("header.csv", "user,item,time\n", "rows after the header"),
    (
        "missing.csv",
        "user,thing\nu,a\n",
        "column for the item (item, item_id",
    ),
    (
        "missing.csv",
        "user,thing\nu,a\n",
        "found the columns \"user\", \"thing\"",
    ),
    (
        "headless.csv",
        "1,50,881250949\n",
        "without a header name the columns by position",
    ),
    (
        "twice.csv",
        "user,item,item\nu,a,b\n",
        "one column \"item\", found several",
    ),
    (
        "time.csv",
        "user,item,time\nu,a,1\nu,b,soon\n",
        "time.csv:3: column \"time\": expected a time, found \"soon\"",
    ),
    (
        "open.csv",
        "user,item,x\nu,a,x\n\n\nu,b,\"y\nu,c,z\n",
        "open.csv:5: expected a closing quote, found the end of the file",
    ),
    (
        "within.csv",
        "user,item,x\nu,a,\"x\ny\"\n\nu,,z",
        "within.csv:5: column",
    ),
    (
        "crlf.csv",
        "user,item,time\r\nu,a,1\r\nu,b,2\r\n\r\nu,c,x\r\n",
        "crlf.csv:5: column",
    ),
    ("nan.csv", "user,item,time\nu,a,NaN\n", "finite time"),
    ("inf.csv", "user,item,time\nu,a,-inf\n", "finite time"),
    ("none.csv", "user,item,time\nu,a,\n", "an empty field"),
    (
        "kinds.csv",
        "user,item,time\nu,a,5\nu,b,2024-01-01\n",
        "kinds.csv:3: column \"time\": expected a number as in line 2, found a date",
    ),
    (
        "narrow.csv",
        "user,item,time\nu,a\n",
        "narrow.csv:2: expected 3 fields separated by ',', as in the header, found 2",
    ),
    (
        "wide.tsv",
        "user\titem\nu\ta\tb\n",
        "expected 2 fields separated by a tab",
    ),
    (
        "list.json",
        "[{\"user\":1,\"item\":2}]",
        "one object a line",
    ),
    (
        "torn.jsonl",
        "{\"user\":1,\"item\":2}\n{\"user\":1,\n",
        "torn.jsonl:2: expected a JSON object",
    ),
    (
        "tail.jsonl",
        "{\"user\":1,\"item\":2}\n{\"user\":1,\"item\":2} x\n",
        "tail.jsonl:2:",
    ),
    (
        "key.jsonl",
        "{\"user\":1,\"item\":2}\n{\"user\":1,\"user\":2,\"item\":3}\n",
        "stands twice",
    ),
    (
        "mixed.jsonl",
        "{\"user\":1,\"item\":2}\n{\"user\":\"1\",\"item\":2}\n",
        "mixed.jsonl:2: column \"user\": expected an integer as in line 1, found text",
    ),
    (
        "null.jsonl",
        "{\"user\":1,\"item\":2}\n{\"user\":null,\"item\":2}\n",
        "nothing (null)",
    ),
    (
        "absent.jsonl",
        "{\"user\":1,\"item\":2}\n{\"item\":2}\n",
        "nothing (null)",
    ),
    (
        "half.jsonl",
        "{\"user\":1.5,\"item\":2}\n",
        "the fraction 1.5",
    ),
    (
        "nested.jsonl",
        "{\"user\":[1],\"item\":2}\n",
        "found a list of more than texts",
    ),
    ("packed.csv", "\u{1f}\u{0}", "packed.csv"),
    ("zip.csv", "PK\u{3}\u{4}....", "a ZIP archive"),
    (
        "fake.parquet",
        "PAR1 and nothing more",
        "a readable Parquet file",
    ),
    (
        "fake2.parquet",
        "user,item\nu,a\n",
        "a readable Parquet file",
    ),
    (
        "list.inter",
        "user_id:token\titem_id_list:token_seq\titem_id:token\nu\ta b\tc\n",
        "one interaction a line",
    ),
    ("short.dat", "1::2\n3::4\n", "short.dat"),
    ("prose.txt", "Dear diary\n", "without a separator"),
];

#[test]
fn refusals_name_file_line_and_what_was_found() {
    for (name, content, message) in REFUSALS {
        let error = refused(name, content, &PrepareSettings::default()).to_string();
        assert!(error.contains(message), "{name}: {error}");
    }
    let rated = |least| settings(|s| s.min_rating = Some(least));
    let cases = [
        (
            "a.csv",
            "user,item,rating\nu,a,5\nu,b,nan\n",
            3.0,
            "a.csv:3: column \"rating\": expected a finite number",
        ),
        (
            "b.csv",
            "user,item,rating\nu,a,good\n",
            3.0,
            "found \"good\"",
        ),
        ("c.csv", "user,item\nu,a\n", 3.0, "column for the rating"),
        (
            "d.csv",
            "user,item,rating\nu,a,1\n",
            3.0,
            "none left after min_rating 3 (1 before it)",
        ),
    ];
    for (name, content, least, message) in cases {
        let error = refused(name, content, &rated(least)).to_string();
        assert!(error.contains(message), "{error}");
    }
    let folder = Folder::new();
    let error = refusal(&folder.file("e.csv", "user,item\nu,a\n"), &rated(f64::NAN)).to_string();
    assert!(
        error.contains("setting min_rating: expected a finite number"),
        "{error}"
    );
}

#[test]
fn refuses_folders_missing_files_other_encodings_and_long_lines() {
    let folder = Folder::new();
    let plain = PrepareSettings::default();
    let error = refusal(folder.0.path(), &plain);
    assert!(
        matches!(
            error,
            DataError::NotAFile {
                found: "a folder",
                ..
            }
        ),
        "{error}"
    );
    let error = refusal(&folder.0.path().join("none.csv"), &plain);
    assert!(matches!(error, DataError::Io { .. }), "{error}");

    let cases: [(&str, &[u8], &str); 5] = [
        (
            "latin.csv",
            b"user,item\nu,a\nu,caf\xe9\n",
            "latin.csv:3: column \"item\": expected UTF-8 text, found the byte 0xe9 at place 4",
        ),
        (
            "latin.tsv",
            b"user\titem\nu\tcaf\xe9\n",
            "latin.tsv:2: expected UTF-8 text",
        ),
        (
            "latin.jsonl",
            b"{\"user\":1,\"item\":2}\n{\"user\":\"\xe9\"}\n",
            "latin.jsonl:2: expected UTF-8",
        ),
        ("wide.csv", b"\xff\xfeu\0s\0", "UTF-16 text"),
        ("gz.csv", b"\x1f\x8b\x08\0", "gzip data"),
    ];
    for (name, content, message) in cases {
        let error = refused(name, content, &plain).to_string();
        assert!(error.contains(message), "{error}");
    }

    let long = "x".repeat(lines::MAX_LINE_BYTES + (1 << 18));
    let open_quote = format!("user,item\nu,a\nu,\"{long}\n");
    let error = refused("quote.csv", open_quote, &plain);
    assert!(
        matches!(error, DataError::LineTooLong { line: 3, .. }),
        "{error}"
    );
    let error = refused("long.tsv", format!("user\titem\nu\t{long}\n"), &plain);
    assert!(
        matches!(error, DataError::LineTooLong { line: 2, .. }),
        "{error}"
    );
    let id = "i".repeat(2000);
    let error = refused("id.csv", format!("user,item\nu,{id}\n"), &plain).to_string();
    assert!(error.contains("an id of at most 1024 bytes"), "{error}");
    assert!(error.len() < 400, "hostile text is cut: {error}");
}

#[test]
fn settings_are_strict() {
    let read = |text: &str| serde_json::from_str::<PrepareSettings>(text);
    assert_eq!(read("{}").expect("defaults"), PrepareSettings::default());
    let chosen = read(r#"{"format":"recbole","duplicates":"last","k_core":5}"#).expect("valid");
    assert_eq!(
        (chosen.format, chosen.duplicates, chosen.k_core),
        (Format::RecBole, Duplicates::Last, 5)
    );
    assert!(read(r#"{"kcore":5}"#).is_err());
}
