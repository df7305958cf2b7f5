//! ONNX Runtime linked into the program: the C source that an app for Apple systems compiles.

use crate::support;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// A program that loads nothing itself: `recommend BUNDLE`.
const PROGRAM: &str = r#"
#include "slmrec.h"
#include "SLMRecLink.h"
#include <stdio.h>

static const void *too_old_api(uint32_t version) { (void)version; return NULL; }
static const void *const too_old[] = { (const void *)too_old_api, NULL };
static const void *too_old_base(void) { return too_old; }

int main(int count, char **arguments) {
    if (count != 2) return 2;
    printf("%d %d\n", slmrec_use_linked_onnxruntime(NULL), slmrec_use_linked_onnxruntime(too_old_base));
    printf("%d %d\n", slmrec_link_onnxruntime(), slmrec_link_onnxruntime());
    SlmrecRecommender *recommender = NULL;
    if (slmrec_open(arguments[1], "{\"onnxruntime\": \"/other.so\"}", &recommender) != 6) return 3;
    if (slmrec_open(arguments[1], NULL, &recommender) != 0) return puts(slmrec_last_error()), 1;
    char *answer = NULL;
    if (slmrec_info(recommender, &answer) != 0) return puts(slmrec_last_error()), 1;
    puts(answer);
    slmrec_string_free(answer);
    if (slmrec_self_test(recommender, NULL, &answer) != 0) return puts(slmrec_last_error()), 1;
    puts(answer);
    slmrec_string_free(answer);
    slmrec_close(recommender);
    return 0;
}
"#;

#[test]
fn a_library_that_is_a_part_of_the_program_is_used() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let link = root.join("../../ios/Sources/SLMRecLink");
    let folder = tempfile::tempdir().expect("temporary folder");
    let (source, program) = (folder.path().join("main.c"), folder.path().join("main"));
    fs::write(&source, PROGRAM).expect("written");
    // The name by which programs ask for it.
    let name = folder.path().join("libonnxruntime.so.1");
    symlink(support::onnxruntime(), name).expect("linked");
    let compiled = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-Werror"])
        // What the source declares itself is compared with the header.
        .arg("-include")
        .arg(root.join("include/slmrec.h"))
        .arg("-I")
        .arg(root.join("include"))
        .arg("-I")
        .arg(link.join("include"))
        .args([&source, &link.join("SLMRecLink.c"), &support::library()])
        .arg(support::onnxruntime())
        .arg("-o")
        .arg(&program)
        .output()
        .expect("a C compiler");
    let said = String::from_utf8_lossy(&compiled.stderr);
    assert!(compiled.status.success(), "{said}");

    let folders = [folder.path(), &support::library_folder()].map(Path::to_owned);
    let run = Command::new(&program)
        .arg(support::bundle())
        .env(
            "LD_LIBRARY_PATH",
            std::env::join_paths(folders).expect("paths"),
        )
        .env("ORT_DISABLE_TELEMETRY", "1")
        .output()
        .expect("runs");
    let out = String::from_utf8_lossy(&run.stdout);
    let error = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{out}\n{error}");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[..2], ["1 6", "0 0"], "{out}");
    assert!(lines[2].contains("\"name\":\"onnxruntime\""), "{out}");
    assert!(lines[3].contains("\"passed\":true"), "{out}");
}
