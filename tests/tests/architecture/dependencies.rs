//! Which crate may depend on which.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand};

use crate::{expect_none, root};

/// Every package of the workspace, and those of the workspace that it may depend on directly.
const ARROWS: &[(&str, &[&str])] = &[
    ("slmrec-core", &[]),
    ("slmrec-runtime", &["slmrec-core"]),
    ("slmrec-run", &["slmrec-core", "slmrec-runtime"]),
    ("slmrec-python", &["slmrec-core", "slmrec-runtime"]),
    ("slmrec-ffi", &["slmrec-core", "slmrec-runtime"]),
    ("slmrec-export", &["slmrec-core"]),
    ("slmrec-distill", &["slmrec-core", "slmrec-export"]),
    (
        "slmrec-tests",
        &[
            "slmrec-core",
            "slmrec-runtime",
            "slmrec-run",
            "slmrec-export",
            "slmrec-distill",
        ],
    ),
    ("xtask", &[]),
];

/// What a package must not reach, over any number of steps. `candle` stands for `candle-core` too.
const NEVER: &[(&str, &[&str])] = &[
    ("slmrec-core", &["candle", "ort", "tract", "prost", "clap"]),
    (
        "slmrec-runtime",
        &["candle", "slmrec-distill", "slmrec-export", "clap", "tokio"],
    ),
    ("slmrec-run", &["candle"]),
    ("slmrec-python", &["candle", "clap"]),
    (
        "slmrec-ffi",
        &["candle", "slmrec-export", "clap", "tokio", "uniffi_bindgen"],
    ),
    ("slmrec-export", &["candle", "ort"]),
    ("slmrec-distill", &["ort"]),
    ("xtask", &["slmrec"]),
];

/// Package names and what each needs directly to be built (no dev-dependencies).
type Graph = BTreeMap<String, BTreeSet<String>>;

#[test]
fn arrows_point_the_right_way() {
    let metadata = metadata();
    let declared = declared(&metadata);
    assert!(declared.len() >= ARROWS.len(), "{declared:?}");
    expect_none(&wrong_arrows(&declared, ARROWS));
}

#[test]
fn nothing_forbidden_is_reached() {
    let metadata = metadata();
    let resolved = resolved(&metadata);
    // The graph is real: the runtime does reach its engine.
    assert!(reachable(&resolved, "slmrec-runtime").contains_key("ort"));
    expect_none(&forbidden_reached(&resolved, NEVER));
}

/// Apart from the test above, since there the features of the whole workspace count together, and
/// the command runs tract.
#[test]
fn what_an_app_ships_has_no_desktop_parts() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--package", "slmrec-ffi"])
        .args(["--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let tree = String::from_utf8(tree.stdout).expect("UTF-8");
    let packages = packages_of(&tree);
    // The tree is real: it reaches the engine.
    assert!(packages.contains("ort"), "{packages:?}");
    expect_none(&desktop_parts(&packages));
}

/// Names of the packages in lines like `ort v2.0.0 (*)`.
fn packages_of(tree: &str) -> BTreeSet<&str> {
    tree.lines()
        .filter_map(|line| line.split(' ').next())
        .collect()
}

fn desktop_parts(packages: &BTreeSet<&str>) -> Vec<String> {
    const DESKTOP: &[&str] = &["candle", "clap", "tokio", "tract", "rayon", "comfy-table"];
    let is_desktop = |name: &&&str| DESKTOP.iter().any(|pattern| matches(pattern, name));
    let found = packages.iter().filter(is_desktop);
    found
        .map(|name| format!("slmrec-ffi must not need {name}"))
        .collect()
}

#[test]
fn desktop_parts_are_found() {
    let packages = packages_of("slmrec-ffi v0.1.0\nort v2.0.0 (*)\ntract-onnx v0.23.9\ntractor v1");
    let found = desktop_parts(&packages);
    assert_eq!(found, ["slmrec-ffi must not need tract-onnx"]);
}

fn metadata() -> Metadata {
    // Only this machine's platform: the crates of others need not be downloaded for it.
    let rustc = Command::new("rustc")
        .arg("-vV")
        .output()
        .expect("rustc runs");
    let verbose = String::from_utf8(rustc.stdout).expect("UTF-8");
    let host = verbose.lines().find_map(|line| line.strip_prefix("host: "));
    MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .other_options([
            "--locked".to_owned(),
            "--filter-platform".to_owned(),
            host.expect("rustc names its host").to_owned(),
        ])
        .exec()
        .expect("cargo metadata")
}

/// Declared dependencies between members of the workspace, optional and platform ones too.
fn declared(metadata: &Metadata) -> Graph {
    let members = metadata.workspace_packages();
    let names: BTreeSet<String> = members.iter().map(|p| p.name.to_string()).collect();
    let ours = |package: &&cargo_metadata::Package| {
        let needed = package.dependencies.iter();
        needed
            .filter(|d| d.kind != DependencyKind::Development && names.contains(&d.name))
            .map(|d| d.name.clone())
            .collect()
    };
    (members.iter())
        .map(|package| (package.name.to_string(), ours(package)))
        .collect()
}

/// The resolved graph of all packages. Features are those of the whole workspace together, so an
/// arrow here may be one that only another member switches on: the check is on the strict side.
fn resolved(metadata: &Metadata) -> Graph {
    let name = |id| metadata[id].name.to_string();
    let resolve = metadata.resolve.as_ref().expect("a resolved graph");
    let mut graph = Graph::new();
    for node in &resolve.nodes {
        let needed = node.deps.iter().filter(|dep| {
            let mut kinds = dep.dep_kinds.iter();
            kinds.any(|k| k.kind != DependencyKind::Development)
        });
        // Two versions of a package share a name and, here, a node.
        graph
            .entry(name(&node.id))
            .or_default()
            .extend(needed.map(|dep| name(&dep.pkg)));
    }
    graph
}

fn wrong_arrows(declared: &Graph, allowed: &[(&str, &[&str])]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (package, needed) in declared {
        let Some((_, allowed)) = allowed.iter().find(|(name, _)| name == package) else {
            wrong.push(format!(
                "{package} is new: say in ARROWS what it may depend on"
            ));
            continue;
        };
        let extra = needed.iter().filter(|n| !allowed.contains(&n.as_str()));
        wrong.extend(extra.map(|n| format!("{package} must not depend on {n}")));
    }
    wrong
}

fn forbidden_reached(graph: &Graph, never: &[(&str, &[&str])]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (package, patterns) in never {
        if !graph.contains_key(*package) {
            wrong.push(format!("{package} of NEVER does not exist"));
        }
        for (reached, by) in reachable(graph, package) {
            if patterns.iter().any(|pattern| matches(pattern, &reached)) {
                wrong.push(format!(
                    "{package} must not reach {reached} (needed by {by})"
                ));
            }
        }
    }
    wrong
}

/// `candle` matches `candle`, `candle-core` and `candle_nn`.
fn matches(pattern: &str, name: &str) -> bool {
    let rest = name.strip_prefix(pattern);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_']))
}

/// Everything that `package` needs, with a package that needs it directly.
fn reachable(graph: &Graph, package: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![package.to_owned()];
    while let Some(next) = open.pop() {
        for needed in graph.get(&next).into_iter().flatten() {
            if needed != package && !found.contains_key(needed) {
                found.insert(needed.clone(), next.clone());
                open.push(needed.clone());
            }
        }
    }
    found
}

fn graph(edges: &[(&str, &[&str])]) -> Graph {
    let owned = |names: &[&str]| names.iter().map(|&n| n.to_owned()).collect();
    (edges.iter())
        .map(|(name, needed)| ((*name).to_owned(), owned(needed)))
        .collect()
}

#[test]
fn a_wrong_arrow_and_a_new_package_are_found() {
    let sample = graph(&[
        ("slmrec-core", &["slmrec-runtime"]),
        ("slmrec-runtime", &["slmrec-core"]),
        ("slmrec-new", &[]),
    ]);
    let wrong = wrong_arrows(&sample, ARROWS);
    assert_eq!(wrong.len(), 2, "{wrong:?}");
    assert!(wrong[0].contains("slmrec-core must not depend on slmrec-runtime"));
    assert!(wrong[1].contains("slmrec-new is new"));
}

#[test]
fn a_forbidden_package_is_found_at_any_depth() {
    let sample = graph(&[
        ("a", &["helper"]),
        ("helper", &["a", "candle-core", "candlelight"]),
        ("candle-core", &[]),
    ]);
    let wrong = forbidden_reached(&sample, &[("a", &["candle"])]);
    assert_eq!(wrong, ["a must not reach candle-core (needed by helper)"]);
    assert_eq!(forbidden_reached(&sample, &[("b", &["c"])]).len(), 1);
}
