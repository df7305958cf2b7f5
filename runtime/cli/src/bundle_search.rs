//! Which bundle is meant: `--bundle`, `SLMREC_BUNDLE`, `student.slmrec` here.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

const VARIABLE: &str = "SLMREC_BUNDLE";
const DEFAULT: &str = "student.slmrec";

/// The first of the three that is given; a file that was named is not replaced by another.
pub(crate) fn find(option: Option<&Path>) -> anyhow::Result<PathBuf> {
    choose(option, std::env::var_os(VARIABLE), Path::new(DEFAULT))
}

fn choose(
    option: Option<&Path>,
    variable: Option<OsString>,
    default: &Path,
) -> anyhow::Result<PathBuf> {
    if let Some(path) = option {
        return Ok(path.to_owned());
    }
    if let Some(path) = variable.filter(|v| !v.is_empty()) {
        let path = PathBuf::from(path);
        anyhow::ensure!(
            path.exists(),
            "{}: no such bundle (named by {VARIABLE})",
            path.display()
        );
        return Ok(path);
    }
    anyhow::ensure!(
        default.exists(),
        "no bundle: --bundle was not given, {VARIABLE} is not set, and there is no {DEFAULT} in the \
         current directory; hint: `slmrec-distill export --int8` writes {DEFAULT}"
    );
    Ok(default.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order() {
        let here = Path::new("Cargo.toml");
        let option = choose(Some(Path::new("a")), Some("b".into()), here);
        assert_eq!(option.expect("given"), Path::new("a"));
        let missing = choose(None, Some("no-such".into()), here).expect_err("missing");
        assert!(missing.to_string().contains(VARIABLE), "{missing}");
        let default = choose(None, Some("".into()), here).expect("there");
        assert_eq!(default, here);
        let none = choose(None, None, Path::new("no-such")).expect_err("none");
        for name in ["--bundle", VARIABLE, DEFAULT, "hint: "] {
            assert!(none.to_string().contains(name), "{none}");
        }
    }
}
