//! Whole files: every form read, every refusal named.

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

mod categories;
mod parquet_files;
mod refusals;

/// A folder with files in it.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("temporary folder"))
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, content).expect("writes");
        path
    }
}

fn settings(change: impl FnOnce(&mut PrepareSettings)) -> PrepareSettings {
    let mut settings = PrepareSettings::default();
    change(&mut settings);
    settings
}

fn run(path: &Path, settings: &PrepareSettings) -> (Dataset, PrepareReport) {
    prepare(path, settings, &|_, _| {}).expect("prepares")
}

fn refusal(path: &Path, settings: &PrepareSettings) -> DataError {
    prepare(path, settings, &|_, _| {}).expect_err("refuses")
}

/// Every user with the ids of the items, oldest first: `u:a,b v:c`.
fn sequences(dataset: &Dataset) -> String {
    let user = |user: usize| {
        let id = |i: &ItemIndex| dataset.vocabulary.get(*i).expect("a known row").id.clone();
        let ids: Vec<String> = dataset.sequence(user).iter().map(id).collect();
        format!("{}:{}", dataset.users[user], ids.join(","))
    };
    (0..dataset.num_users())
        .map(user)
        .collect::<Vec<_>>()
        .join(" ")
}

fn prepared(name: &str, content: impl AsRef<[u8]>, settings: &PrepareSettings) -> String {
    let folder = Folder::new();
    sequences(&run(&folder.file(name, content), settings).0)
}

fn refused(name: &str, content: impl AsRef<[u8]>, settings: &PrepareSettings) -> DataError {
    let folder = Folder::new();
    let error = refusal(&folder.file(name, content), settings);
    assert!(
        error.to_string().contains(name),
        "the file is named: {error}"
    );
    error
}

/// The same four interactions in every form.
const EXPECTED: &str = "u1:b,a u2:a,c";

#[test]
fn every_form_gives_the_same_sequences() {
    let plain = PrepareSettings::default();
    let by_position = settings(|s| {
        s.user_column = Some("1".into());
        s.item_column = Some("2".into());
        s.time_column = Some("3".into());
    });
    let cases = [
        (
            "c.csv",
            "user_id,item_id,timestamp\nu1,a,9\nu2,a,1\nu1,b,5\nu2,c,2\n",
            &plain,
        ),
        (
            "crlf.csv",
            "userId,movieId,ts\r\nu1,a,9\r\nu2,a,1\r\nu1,b,5\r\nu2,c,2\r\n",
            &plain,
        ),
        (
            "bom.csv",
            "\u{feff}user,item,time\nu1,a,9\nu2,a,1\nu1,b,5\nu2,c,2",
            &plain,
        ),
        (
            "semi.csv",
            "user;text;item;time\nu1;\"x;\n\"\"y\";a;9\nu2;;a;1\nu1;;b;5\nu2;;c;2\n",
            &plain,
        ),
        (
            "t.tsv",
            "uid\tasin\tdatetime\nu1\ta\t2024-01-09\nu2\ta\t2024-01-01\nu1\tb\t2024-01-05T10:00Z\nu2\tc\t2024-01-02\n",
            &plain,
        ),
        ("p.csv", "u1,a,9\nu2,a,1\nu1,b,5\nu2,c,2\n", &by_position),
        (
            "r.dat",
            "u1::a::5::9\nu2::a::4::1\nu1::b::3::5\nu2::c::1::2\n",
            &plain,
        ),
        (
            "x.inter",
            "user_id:token\titem_id:token\trating:float\ttimestamp:float\nu1\ta\t1\t9.5\nu2\ta\t1\t1\nu1\tb\t1\t9.25\nu2\tc\t1\t2\n",
            &plain,
        ),
        (
            "l.jsonl",
            "{\"user\":\"u1\",\"item\":\"a\",\"time\":9,\"x\":[1,{}]}\n{\"item\":\"a\",\"user\":\"u2\",\"time\":1}\n\n{\"user\":\"u1\",\"item\":\"b\",\"time\":5.5}\n{\"user\":\"u\\u0032\",\"item\":\"c\",\"time\":\"2\"}\n",
            &plain,
        ),
        (
            "fractions.csv",
            "user,item,time\nu1,a,9.75\nu2,a,1.0\nu1,b,9.5\nu2,c,1.000000001\n",
            &plain,
        ),
    ];
    for (name, content, settings) in cases {
        assert_eq!(prepared(name, content, settings), EXPECTED, "{name}");
    }
}

#[test]
fn movielens_100k_is_recognised_with_its_latin_1_titles() {
    let folder = Folder::new();
    let source = folder.file(
        "u.data",
        "1\t50\t5\t881250949\n1\t7\t3\t881250940\n2\t50\t4\t881250949\n",
    );
    let flags = "|0".repeat(19);
    let mut items =
        format!("7|Caf\u{0}|01-Jan-1995||http://x{flags}\n50|Star Wars|01-Jan-1977||{flags}\n")
            .into_bytes();
    let accent = items.iter().position(|&b| b == 0).expect("the mark");
    items[accent] = 0xe9;
    folder.file("u.item", items);
    let (dataset, report) = run(&source, &PrepareSettings::default());
    assert_eq!(sequences(&dataset), "1:7,50 2:50");
    let titles: Vec<_> = dataset
        .vocabulary
        .items()
        .iter()
        .map(|i| i.title.as_deref())
        .collect();
    assert_eq!(titles, [Some("Star Wars"), Some("Café")]);
    let text = report.to_string();
    assert!(
        text.contains("1 lines are not UTF-8 and were read as Latin-1"),
        "{text}"
    );
    assert!(text.contains("found beside the source"), "{text}");
}

#[test]
fn titles_come_from_a_file_of_items_or_from_the_source() {
    let folder = Folder::new();
    let source = folder.file(
        "ratings.csv",
        "userId,movieId,rating,timestamp\n1,10,4,1\n1,20,4,2\n1,30,4,3\n",
    );
    folder.file(
        "movies.csv",
        "movieId,title,genres\n10,\"Good, the Bad \"\"x\"\"\",W\n30,,D\n99,Unused,D\n",
    );
    let titles = |dataset: &Dataset| -> Vec<Option<String>> {
        dataset
            .vocabulary
            .items()
            .iter()
            .map(|i| i.title.clone())
            .collect()
    };
    let (dataset, report) = run(&source, &PrepareSettings::default());
    assert_eq!(
        titles(&dataset),
        [Some("Good, the Bad \"x\"".into()), None, None]
    );
    assert_eq!(report.items_without_title, 2);

    let (dataset, report) = run(&source, &settings(|s| s.find_items = false));
    assert_eq!((titles(&dataset), report.items), (vec![None; 3], None));

    let other = folder.file("names.jsonl", "{\"asin\":20,\"name\":\"Twenty\"}\n");
    let (dataset, _) = run(&source, &settings(|s| s.items = Some(other)));
    assert_eq!(titles(&dataset), [None, Some("Twenty".into()), None]);

    let within = folder.file("own.csv", "user,item,what\nu,a,Alpha\nu,b,\nu,a,Other\n");
    let (dataset, _) = run(&within, &settings(|s| s.title_column = Some("what".into())));
    assert_eq!(titles(&dataset), [Some("Alpha".into()), None]);
}

#[test]
fn sequence_lines() {
    let plain = PrepareSettings::default();
    assert_eq!(prepared("s.txt", "5 3 5\n\n3 4\n", &plain), "1:5,3,5 3:3,4");
    let with_user = settings(|s| s.user_column = Some("1".into()));
    assert_eq!(prepared("s.txt", "5 3 5\n7 4\n", &with_user), "5:3,5 7:4");
    let counted: String = (1..=12)
        .map(|user| format!("{user} 70 {}\n", 80 + user))
        .collect();
    assert!(prepared("s.txt", counted, &plain).starts_with("1:70,81 2:70,82 "));
    let words = settings(|s| s.format = Format::Sequences);
    assert_eq!(prepared("s.txt", "b a\na c\n", &words), "1:b,a 2:a,c");
    let error = refused("s.txt", "b a\na c\n", &plain);
    assert!(error.to_string().contains("format sequences"), "{error}");
    let error = refusal(
        &Folder::new().file("s.txt", "1 2\n"),
        &settings(|s| s.min_rating = Some(1.0)),
    );
    assert!(
        matches!(error, DataError::Io { .. } | DataError::Setting { .. }),
        "{error}"
    );
}

#[test]
fn ties_keep_the_order_of_the_file_and_are_counted() {
    let folder = Folder::new();
    let source = folder.file(
        "c.csv",
        "user,item,time\nu,c,5\nu,b,5\nv,x,1\nu,a,1\nv,y,2\nu,d,5\n",
    );
    let (dataset, report) = run(&source, &PrepareSettings::default());
    assert_eq!(sequences(&dataset), "u:a,c,b,d v:x,y");
    let ties = report.ties.expect("there are times");
    assert_eq!(
        (
            ties.neighbours,
            ties.neighbours_tied,
            ties.users_last_two_tied
        ),
        (4, 2, 1)
    );
    assert_eq!(
        dataset.times.as_deref(),
        Some([1, 5, 5, 5, 1, 2].as_slice())
    );
    let untimed = folder.file("n.csv", "user,item\nu,c\nv,x\nu,a\n");
    let (dataset, report) = run(&untimed, &PrepareSettings::default());
    assert_eq!(sequences(&dataset), "u:c,a v:x");
    assert_eq!(
        (dataset.times, report.ties, report.times),
        (None, None, None)
    );
}

#[test]
fn duplicates_follow_the_rule() {
    let content = "user,item,time\nu,a,1\nu,b,2\nu,a,3\nv,a,4\nu,b,5\n";
    let cases = [
        (Duplicates::Keep, "u:a,b,a,b v:a", 0),
        (Duplicates::First, "u:a,b v:a", 2),
        (Duplicates::Last, "u:a,b v:a", 2),
    ];
    for (rule, expected, dropped) in cases {
        let folder = Folder::new();
        let source = folder.file("c.csv", content);
        let (dataset, report) = run(&source, &settings(|s| s.duplicates = rule));
        assert_eq!(sequences(&dataset), expected);
        let found = report.duplicates;
        assert_eq!((found.rule, found.found, found.dropped), (rule, 2, dropped));
        let times = dataset.times.expect("times");
        match rule {
            Duplicates::First => assert_eq!(times, [1, 2, 4]),
            Duplicates::Last => assert_eq!(times, [3, 5, 4]),
            Duplicates::Keep => assert_eq!(times, [1, 2, 3, 5, 4]),
        }
    }
}

/// Against the plain definition: drop whatever is too rare until nothing is.
#[test]
fn k_core_is_a_fixed_point_and_the_report_adds_up() {
    let mut state = 1u64;
    let mut next = |limit: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % limit
    };
    let rows: Vec<(u64, u64, u64, u64)> = (0..400)
        .map(|_| (next(60), next(50), next(5) + 1, next(1000)))
        .collect();
    let text: String = rows
        .iter()
        .map(|(user, item, rating, time)| format!("u{user},i{item},{rating},{time}\n"))
        .collect();
    let folder = Folder::new();
    let source = folder.file("c.csv", format!("user,item,rating,time\n{text}"));
    let (dataset, report) = run(
        &source,
        &settings(|s| {
            s.min_rating = Some(2.0);
            s.k_core = 4;
            s.duplicates = Duplicates::First;
        }),
    );

    let mut seen = std::collections::HashSet::new();
    let mut kept: Vec<_> = rows.iter().filter(|row| row.2 >= 2).collect();
    kept.sort_by_key(|row| row.3);
    kept.retain(|row| seen.insert((row.0, row.1)));
    loop {
        let before = kept.clone();
        kept.retain(|row| {
            before.iter().filter(|r| r.0 == row.0).count() >= 4
                && before.iter().filter(|r| r.1 == row.1).count() >= 4
        });
        if kept.len() == before.len() {
            break;
        }
    }
    assert!(!kept.is_empty() && report.k_core_rounds.len() > 1);
    for (user, id) in dataset.users.iter().enumerate() {
        let expected: Vec<String> = kept
            .iter()
            .filter(|row| format!("u{}", row.0) == *id)
            .map(|row| format!("i{}", row.1))
            .collect();
        let found: Vec<&str> = dataset
            .sequence(user)
            .iter()
            .map(|i| dataset.vocabulary.get(*i).expect("known").id.as_str())
            .collect();
        assert_eq!(found, expected);
    }
    assert_eq!(dataset.items.len(), kept.len());
    let dropped: u64 = report
        .k_core_rounds
        .iter()
        .map(|round| round.interactions)
        .sum();
    let sum =
        report.below_min_rating + report.duplicates.dropped + dropped + report.kept.interactions;
    assert_eq!((report.source.rows, report.bad_lines.count), (sum, 0));
    // Rows are numbered by first occurrence in the file.
    let first = |id: &str| {
        rows.iter()
            .position(|row| row.2 >= 2 && format!("i{}", row.1) == id)
    };
    assert!(
        dataset
            .vocabulary
            .items()
            .is_sorted_by_key(|item| first(&item.id))
    );
}

#[test]
fn provenance_names_source_settings_and_report() {
    let folder = Folder::new();
    let source = folder.file("log.csv", "user,item,time\nu,a,881250949\nu,b,891250949\n");
    let chosen = settings(|s| s.k_core = 2);
    let error = refusal(&source, &chosen);
    assert!(
        matches!(error, DataError::NothingLeft { before: 2, .. }),
        "{error}"
    );
    let (dataset, report) = run(&source, &PrepareSettings::default());
    assert_eq!(dataset.name, "log");
    let from = &dataset.provenance["report"]["source"];
    assert_eq!(from["file"], "log.csv");
    assert_eq!(from["sha256"], hash::sha256_file(&source).expect("hash"));
    assert_eq!(dataset.provenance["settings"]["duplicates"], "keep");
    let days = report
        .times
        .and_then(|t| t.days)
        .expect("these are seconds");
    assert_eq!(days, ["1997-12-04", "1998-03-30"]);
    assert_eq!(report.users_for_training_only, 1);
    dataset.write(&folder.0.path().join("set")).expect("writes");
    let back = Dataset::read(&folder.0.path().join("set")).expect("reads");
    assert_eq!(
        (back.items, back.provenance),
        (dataset.items, dataset.provenance)
    );
}

#[test]
fn progress_reaches_the_end() {
    let folder = Folder::new();
    let text: String = (0..200_000)
        .map(|n| format!("u{},i{}\n", n % 100, n % 7))
        .collect();
    let source = folder.file("c.csv", format!("user,item\n{text}"));
    let seen = std::cell::RefCell::new(Vec::new());
    prepare(&source, &PrepareSettings::default(), &|done, total| {
        seen.borrow_mut().push((done, total))
    })
    .expect("prepares");
    let seen = seen.into_inner();
    let total = fs::metadata(&source).expect("file").len();
    assert!(
        seen.len() > 2 && seen.is_sorted() && seen.last() == Some(&(total, total)),
        "{seen:?}"
    );
}
