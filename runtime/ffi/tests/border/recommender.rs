//! The objects that Kotlin and Swift see, on a real bundle with ONNX Runtime.

use crate::support;
use std::sync::Arc;
use std::thread;

use slmrec_ffi::{CancelToken, Filter, OpenOptions, Recommender, SlmrecError};

fn options() -> OpenOptions {
    OpenOptions {
        onnxruntime: Some(support::onnxruntime().display().to_string()),
        ..OpenOptions::default()
    }
}

fn open() -> Arc<Recommender> {
    let path = support::bundle().display().to_string();
    Recommender::open(&path, options()).expect("opens")
}

fn ids(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|&id| id.to_owned()).collect()
}

#[test]
fn a_history_gives_items_with_titles() {
    let found = open()
        .recommend(
            ids(&["item-1", "nowhere", "item-8"]),
            5,
            Filter::default(),
            None,
        )
        .expect("recommends");
    assert_eq!(found.items.len(), 5);
    assert_eq!(found.unknown_items, ["nowhere"]);
    assert_eq!(found.used_items, 2);
    let first = &found.items[0];
    assert_eq!(first.rank, 1);
    assert!(
        first
            .title
            .as_deref()
            .is_some_and(|t| t.starts_with("The item in row"))
    );
    assert!(
        found
            .items
            .iter()
            .all(|i| i.id != "item-1" && i.id != "item-8")
    );
    assert!(found.items.windows(2).all(|w| w[0].score >= w[1].score));
}

#[test]
fn candidates_have_the_scores_of_the_list_and_reasons_are_of_the_history() {
    let recommender = open();
    let history = ids(&["item-1", "item-8", "item-3"]);
    let list = recommender
        .recommend(history.clone(), 3, Filter::default(), None)
        .expect("recommends");
    let mut candidates: Vec<String> = list.items.iter().map(|i| i.id.clone()).collect();
    candidates.reverse();
    candidates.push("nowhere".into());
    let ranked = recommender
        .score(history.clone(), candidates.clone(), None)
        .expect("ranks");
    assert_eq!(ranked.items, list.items);
    assert_eq!(ranked.unknown_candidates, ["nowhere"]);

    let explained = recommender
        .explain(history.clone(), candidates.clone(), 16, 2, None)
        .expect("explains");
    assert_eq!(explained.examined, 3);
    assert_eq!(explained.items.len(), candidates.len());
    for (item, asked) in explained.items.iter().zip(&candidates) {
        assert_eq!(&item.id, asked);
        assert!(item.reasons.len() <= 2);
        assert!(
            item.reasons
                .iter()
                .all(|r| history.contains(&r.id) && r.drop > 0.0)
        );
    }
    assert!(explained.items.iter().any(|i| !i.reasons.is_empty()));
    let error = recommender.explain(history, candidates, 0, 1, None);
    assert!(matches!(error, Err(SlmrecError::InvalidArgument(_))));
}

#[test]
fn categories_filter_and_unknown_ones_are_named() {
    let recommender = open();
    // Rows that two divide are even, those that three divides third.
    let third = Filter {
        categories: Some(ids(&["third", "Third"])),
        block_categories: ids(&["even", "none"]),
        include_seen: true,
        ..Filter::default()
    };
    let expected = ids(&["item-15", "item-21", "item-27", "item-3", "item-9"]);
    let found = recommender.recommend(ids(&["item-1"]), 30, third.clone(), None);
    let found = found.expect("recommends");
    let mut left: Vec<String> = found.items.into_iter().map(|i| i.id).collect();
    left.sort_unstable();
    assert_eq!((left, found.shortfall), (expected.clone(), 25));
    let mut unknown = found.unknown_categories;
    unknown.sort_unstable();
    assert_eq!(unknown, ["Third", "none"]);
    assert!(found.unknown_filter_items.is_empty());
    let found = recommender.popular(30, third).expect("a list");
    let mut left: Vec<String> = found.items.into_iter().map(|i| i.id).collect();
    left.sort_unstable();
    assert_eq!((left, found.shortfall), (expected, 25));
    assert_eq!(found.unknown_categories.len(), 2);
    let long = Filter {
        block_categories: vec!["x".repeat(5000)],
        ..Filter::default()
    };
    let error = recommender.recommend(ids(&["item-1"]), 1, long, None);
    let Err(SlmrecError::InvalidArgument(told)) = error else {
        panic!("{error:?}");
    };
    assert!(told.contains("the blocked categories"), "{told}");
}

#[test]
fn a_state_grows_and_survives_as_bytes() {
    let recommender = open();
    let state = Arc::clone(&recommender)
        .history_state(ids(&["item-1", "nowhere"]))
        .expect("a state");
    assert_eq!(state.unknown_items(), ["nowhere"]);
    assert_eq!(state.append("item-8".into()), Ok(true));
    assert_eq!(state.append("nowhere".into()), Ok(false));
    assert_eq!(state.used_items(), Ok(2));
    let items = |found: slmrec_ffi::Recommendations| -> Vec<String> {
        found.items.into_iter().map(|i| i.id).collect()
    };
    let grown = state
        .recommend(4, Filter::default(), None)
        .expect("recommends");
    let whole = recommender
        .recommend(ids(&["item-1", "item-8"]), 4, Filter::default(), None)
        .expect("recommends");
    assert_eq!(items(grown), items(whole.clone()));

    let bytes = state.to_bytes().expect("bytes");
    drop((state, recommender));
    let again = open();
    let state = Arc::clone(&again)
        .restore_history_state(bytes.clone())
        .expect("restores");
    assert_eq!(state.to_bytes(), Ok(bytes.clone()));
    let restored = state
        .recommend(4, Filter::default(), None)
        .expect("recommends");
    assert_eq!(items(restored), items(whole));
    let damaged = again.restore_history_state(bytes[1..].to_vec());
    assert!(matches!(damaged, Err(SlmrecError::HistoryState(_))));
}

#[test]
fn what_is_in_the_bundle_and_whether_it_works_here() {
    let recommender = open();
    let info = recommender.info().expect("info");
    assert_eq!((info.items, info.max_history), (30, 6));
    assert_eq!(info.precision, "int8");
    assert_eq!(info.engine.name, "onnxruntime");
    assert_eq!(info.metrics.get("ndcg@10"), Some(&0.125));
    let test = recommender.self_test(None).expect("runs");
    assert!(test.passed && test.samples > 0, "{test:?}");
    let popular = recommender.popular(3, Filter::default()).expect("a list");
    assert_eq!(popular.items.len(), 3);
}

#[test]
fn a_cancelled_question_fails_and_the_next_one_does_not() {
    let recommender = open();
    let token = CancelToken::new();
    token.cancel();
    let history = ids(&["item-1", "item-8"]);
    let asked = |token| recommender.recommend(history.clone(), 3, Filter::default(), token);
    let cancelled = asked(Some(Arc::clone(&token)));
    assert!(matches!(cancelled, Err(SlmrecError::Cancelled(_))));
    asked(Some(CancelToken::new())).expect("recommends");
    let state = Arc::clone(&recommender)
        .history_state(history.clone())
        .expect("a state");
    let cancelled = state.recommend(3, Filter::default(), Some(token));
    assert!(matches!(cancelled, Err(SlmrecError::Cancelled(_))));
    state
        .recommend(3, Filter::default(), None)
        .expect("recommends");
}

#[test]
fn many_threads_get_what_one_gets() {
    let recommender = open();
    let ask = |n: u32| {
        let history = ids(&[
            &format!("item-{}", 1 + n % 30),
            &format!("item-{}", 1 + n / 30),
        ]);
        let found = recommender.recommend(history, 5, Filter::default(), None);
        found.expect("recommends").items
    };
    let alone: Vec<_> = (0..60).map(ask).collect();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| (0..60).map(ask).collect::<Vec<_>>()))
            .collect();
        for worker in workers {
            assert_eq!(worker.join().expect("no panic"), alone);
        }
    });
}

#[test]
fn failures_have_cases() {
    let recommender = open();
    let ask = |history: Vec<String>| recommender.recommend(history, 3, Filter::default(), None);
    assert!(matches!(ask(vec![]), Err(SlmrecError::NoUsableHistory(_))));
    assert!(matches!(
        ask(ids(&["nowhere"])),
        Err(SlmrecError::NoUsableHistory(_))
    ));
    let long = vec!["x".repeat(5000)];
    assert!(matches!(ask(long), Err(SlmrecError::InvalidArgument(_))));

    let open = |path: &str, options| Recommender::open(path, options).map(drop);
    let missing = open("no-such-file.slmrec", options());
    assert!(matches!(missing, Err(SlmrecError::File(_))), "{missing:?}");
    let folder = tempfile::tempdir().expect("temporary folder");
    let mut bytes = std::fs::read(support::bundle()).expect("the bundle");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let damaged = folder.path().join("damaged.slmrec");
    std::fs::write(&damaged, bytes).expect("written");
    let damaged = open(&damaged.display().to_string(), options());
    assert!(
        matches!(damaged, Err(SlmrecError::DamagedBundle(_))),
        "{damaged:?}"
    );
    let path = support::bundle().display().to_string();
    let mut other = options();
    other.threads = 0;
    assert!(matches!(
        open(&path, other),
        Err(SlmrecError::InvalidArgument(_))
    ));
    let pack = recommender.apply_pack(&path);
    assert!(
        matches!(pack, Err(SlmrecError::DamagedBundle(_))),
        "{pack:?}"
    );
    let other = OpenOptions {
        onnxruntime: Some("/no/such/libonnxruntime.so".into()),
        ..OpenOptions::default()
    };
    let library = open(&path, other);
    assert!(
        matches!(library, Err(SlmrecError::OnnxRuntime(_))),
        "{library:?}"
    );
}
