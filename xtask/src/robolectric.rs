//! What Robolectric needs beside the Maven project's dependencies, to run the part of the Kotlin
//! sources that knows Android.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{maven, process, workspace};

/// Robolectric's own dependency, an Android archive: Maven does not look for classes inside it.
const MONITOR: (&str, &str) = ("androidx.test:monitor", "1.8.0");
/// A newer Android than the one that is run: Robolectric names classes of it.
const ANDROID: (&str, &str) = ("org.robolectric:android-all", "14-robolectric-10818077");

/// Where both lie.
pub(crate) struct Jars {
    monitor: PathBuf,
    android: PathBuf,
}

impl Jars {
    /// Fetches them, unless they are there.
    ///
    /// # Errors
    /// What Maven says where they cannot be had.
    pub(crate) fn fetch() -> Result<Self> {
        let folder = workspace::root().join(".slmrec/robolectric");
        fs::create_dir_all(&folder)?;
        Ok(Self {
            monitor: classes(&copy(MONITOR, "aar", &folder)?)?,
            android: copy(ANDROID, "jar", &folder)?,
        })
    }

    /// Properties of the Maven project.
    pub(crate) fn properties(&self) -> [String; 2] {
        [
            format!("-Dslmrec.monitor={}", self.monitor.display()),
            format!("-Dslmrec.android={}", self.android.display()),
        ]
    }
}

fn copy((name, version): (&str, &str), kind: &str, folder: &Path) -> Result<PathBuf> {
    let (_, artifact) = name.split_once(':').context("a name has a group")?;
    let file = folder.join(format!("{artifact}-{version}.{kind}"));
    if !file.is_file() {
        maven::copy(&format!("{name}:{version}:{kind}"), folder)?;
    }
    Ok(file)
}

/// The classes inside an Android archive, in a folder named after it.
fn classes(archive: &Path) -> Result<PathBuf> {
    let folder = archive.with_extension("unpacked");
    let jar = folder.join("classes.jar");
    if !jar.is_file() {
        fs::create_dir_all(&folder)?;
        let mut unpack = Command::new("jar");
        unpack.arg("xf").arg(archive).arg("classes.jar");
        process::run(unpack.current_dir(&folder))?;
    }
    Ok(jar)
}
