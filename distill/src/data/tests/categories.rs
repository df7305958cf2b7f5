//! Categories of items, in every form of a file.

use std::sync::Arc;

use arrow_array::builder::{ListBuilder, StringBuilder};
use arrow_array::{ArrayRef, StringArray};

use super::parquet_files::parquet;
use super::*;

/// Items 10, 20 and 30 of one user.
const RATINGS: &str = "userId,movieId,rating,timestamp\n1,10,4,1\n1,20,4,2\n1,30,4,3\n";

/// The categories of each item, in the order of the vocabulary.
fn categories(dataset: &Dataset) -> Vec<Vec<&str>> {
    let items = dataset.vocabulary.items().iter();
    items
        .map(|item| item.categories.iter().map(String::as_str).collect())
        .collect()
}

/// What the items 10, 20 and 30 have after a file of items.
fn read(
    name: &str,
    content: impl AsRef<[u8]>,
    change: impl FnOnce(&mut PrepareSettings),
) -> String {
    let folder = Folder::new();
    let source = folder.file("log.csv", RATINGS);
    let items = folder.file(name, content);
    let settings = settings(|s| {
        s.items = Some(items);
        change(s);
    });
    let (dataset, _) = run(&source, &settings);
    let lists = categories(&dataset).into_iter().map(|list| list.join("+"));
    lists.collect::<Vec<_>>().join(" / ")
}

fn refused_items(content: &str, change: impl FnOnce(&mut PrepareSettings)) -> String {
    let folder = Folder::new();
    let source = folder.file("log.csv", RATINGS);
    let items = folder.file("items.csv", content);
    let settings = settings(|s| {
        s.items = Some(items);
        change(s);
    });
    refusal(&source, &settings).to_string()
}

fn none(_: &mut PrepareSettings) {}

#[test]
fn cells_and_lists_in_every_form() {
    let expected = "Sci-Fi+War / Film Noir / ";
    let csv = "movieId,title,genres\n20,B, Film Noir \n30,C,(no genres listed)\n10,A,Sci-Fi| War||Sci-Fi\n";
    assert_eq!(read("movies.csv", csv, none), expected);
    let tsv = "item\tname\tCategory\n10\tA\tSci-Fi|War\n20\tB\tFilm Noir\n30\tC\t\n";
    assert_eq!(read("items.tsv", tsv, none), expected);
    let dat = "10::A::Sci-Fi|War\n20::B::Film Noir\n30::C::unknown\n";
    assert_eq!(read("movies.dat", dat, none), expected);
    let json = r#"{"asin": 10, "title": "A", "categories": ["Sci-Fi", " War", "Sci-Fi", null, ""]}
{"asin": 20, "title": "B", "categories": "Film Noir"}
{"asin": 30, "title": "C", "categories": null}
"#;
    assert_eq!(read("meta.jsonl", json, none), expected);
    // A separator is one in a text, not in the texts of a list.
    let nested = r#"{"asin": 10, "title": "A", "category": [["x|y"], ["z"]]}
{"asin": 20, "title": "B"}
{"asin": 30, "title": "C", "category": 7}
"#;
    assert_eq!(read("meta.jsonl", nested, none), "x|y+z /  / 7");
}

#[test]
fn the_class_of_recbole_is_separated_by_spaces() {
    let items = "item_id:token\tmovie_title:token_seq\tclass:token_seq\n10\tA B\tSci-Fi War\n20\tC\tunknown\n";
    assert_eq!(read("x.item", items, none), "Sci-Fi+War /  / ");
    let commas = |s: &mut PrepareSettings| {
        s.items_categories_column = Some("tags".into());
        s.category_separator = Some(",".into());
    };
    let items = "item_id:token\tmovie_title:token_seq\ttags:token_seq\n10\tA\ta b, c\n20\tC\t,\n";
    assert_eq!(read("x.item", items, commas), "a b+c /  / ");
}

#[test]
fn the_flags_of_movielens_100k() {
    let item = |id: u32, set: &[usize]| {
        let flag = |at: usize| if set.contains(&at) { "1" } else { "0" };
        let flags: Vec<&str> = (0..19).map(flag).collect();
        format!("{id}|Title|01-Jan-1995||url|{}\n", flags.join("|"))
    };
    let items = [item(10, &[5, 18, 1]), item(20, &[0]), item(30, &[10])].concat();
    let folder = Folder::new();
    let source = folder.file(
        "u.data",
        "1\t10\t5\t881250949\n1\t20\t3\t881250950\n1\t30\t4\t881250951\n",
    );
    folder.file("u.item", &items);
    let (dataset, report) = run(&source, &PrepareSettings::default());
    assert_eq!(
        categories(&dataset),
        [
            vec!["Action", "Comedy", "Western"],
            vec![],
            vec!["Film-Noir"]
        ]
    );
    let columns = &report.items.as_ref().expect("found").columns;
    assert_eq!(columns["categories"], "unknown to Western");
    assert_eq!((report.items_with_category, report.categories), (2, 4));
    let text = report.to_string();
    assert!(
        text.contains("  with a category      2 items, 4 different categories"),
        "{text}"
    );
    // One of them alone is a column like others.
    let alone = |s: &mut PrepareSettings| s.items_categories_column = Some("Comedy".into());
    assert_eq!(read("u.item", &items, alone), "1 / 0 / 0");
    assert_eq!(read("u.item", &items, leave_out), " /  / ");
    folder.file("u.item", items.replace("|1", "|x"));
    let error = refusal(&source, &PrepareSettings::default()).to_string();
    assert!(
        error.contains("u.item:1: column \"Action\": expected 0 or 1, found \"x\""),
        "{error}"
    );
}

fn leave_out(settings: &mut PrepareSettings) {
    settings.items_categories_column = Some(String::new());
}

#[test]
fn parquet_has_texts_and_lists_of_texts() {
    let ids: ArrayRef = Arc::new(StringArray::from(vec!["10", "20", "30"]));
    let texts: ArrayRef = Arc::new(StringArray::from(vec![Some("Sci-Fi|War"), None, Some("x")]));
    let bytes = parquet(vec![
        ("item", ids.clone()),
        ("title", ids.clone()),
        ("genres", texts),
    ]);
    assert_eq!(read("items.parquet", bytes, none), "Sci-Fi+War /  / x");
    let mut lists = ListBuilder::new(StringBuilder::new());
    lists.append_value([Some("a|b"), None, Some(" c ")]);
    lists.append_null();
    lists.append_value([Some("a|b"), Some("d")]);
    let lists: ArrayRef = Arc::new(lists.finish());
    let bytes = parquet(vec![
        ("item", ids.clone()),
        ("title", ids),
        ("genres", lists),
    ]);
    assert_eq!(read("items.parquet", bytes, none), "a|b+c /  / a|b+d");
}

#[test]
fn the_source_itself_may_have_them() {
    let folder = Folder::new();
    let own = "user,item,category,item_genres\nu,a,of the review,x|y\nu,b,,\nu,a,,z\n";
    let source = folder.file("own.csv", own);
    let (dataset, report) = run(&source, &PrepareSettings::default());
    assert_eq!(categories(&dataset), [vec!["x", "y"], vec![]]);
    assert_eq!(report.source.columns["categories"], "item_genres");
    let named = settings(|s| s.categories_column = Some("category".into()));
    let (dataset, _) = run(&source, &named);
    assert_eq!(categories(&dataset), [vec!["of the review"], vec![]]);
    let left_out = settings(|s| s.categories_column = Some(String::new()));
    assert_eq!(run(&source, &left_out).1.categories, 0);
    // A file of items comes first, and says nothing about what it leaves open.
    let items = folder.file("items.csv", "item,title,genres\na,A,\nb,B,w\n");
    let both = settings(|s| s.items = Some(items));
    let (dataset, _) = run(&source, &both);
    assert_eq!(categories(&dataset), [vec!["x", "y"], vec!["w"]]);
}

#[test]
fn what_is_no_list_of_categories_is_refused_with_its_line() {
    let long = "x".repeat(257);
    let error = refused_items(&format!("item,title,genres\n10,A,y\n20,B,{long}\n"), none);
    assert!(error.contains("items.csv:3: column \"genres\""), "{error}");
    assert!(
        error.contains("a category of at most 256 bytes, found 257 bytes"),
        "{error}"
    );
    assert!(error.contains("set category_separator"), "{error}");
    let many: Vec<String> = (0..257).map(|n| n.to_string()).collect();
    let many = many.join("|");
    let error = refused_items(&format!("item,title,genres\n10,A,{many}\n"), none);
    assert!(
        error.contains("at most 256 categories, found more"),
        "{error}"
    );
    let error = refused_items(
        "{\"item\":10,\"title\":\"A\",\"genres\":[\"x\",1.5]}\n",
        none,
    );
    assert!(error.contains("a list of more than texts"), "{error}");
    let error = refused_items("item,title,genres\n10,A,y\n", |s| {
        s.items_categories_column = Some("tags".into());
    });
    assert!(
        error.contains("column for the categories (tags)"),
        "{error}"
    );
    assert!(error.contains("set items_categories_column"), "{error}");
    let error = refused_items("item,title,genres\n10,A,y\n", |s| {
        s.category_separator = Some(String::new());
    });
    assert!(error.contains("setting category_separator"), "{error}");
}

#[test]
fn nothing_but_the_vocabulary_depends_on_them() {
    let folder = Folder::new();
    let source = folder.file("ratings.csv", RATINGS);
    folder.file("movies.csv", "movieId,title,genres\n10,A,x|y\n20,B,z\n");
    let (with, report) = run(&source, &PrepareSettings::default());
    let (without, _) = run(&source, &settings(leave_out));
    assert_eq!((report.items_with_category, report.categories), (2, 3));
    assert_eq!(report.items_without_title, 1);
    assert_eq!(with.items, without.items);
    assert_eq!(
        (&with.users, &with.offsets, &with.times),
        (&without.users, &without.offsets, &without.times)
    );
    let plain = |dataset: &Dataset| -> Vec<(String, Option<String>)> {
        let items = dataset.vocabulary.items().iter();
        items
            .map(|item| (item.id.clone(), item.title.clone()))
            .collect()
    };
    assert_eq!(plain(&with), plain(&without));
}
