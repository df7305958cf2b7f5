//! `cargo xtask xcframework`: this library for iPhones, their simulator and Macs, as Xcode takes it.
//!
//! Written from the tools' manuals, and never run: there was no Mac where this was written. What it
//! runs is in the tests below.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{apt, process, workspace};

/// Build the library for iOS and macOS as an XCFramework (on a Mac with Xcode)
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: cargo xtask xcframework    # leaves ios/SLMRecNative.xcframework\n\nIt \
    needs Xcode and once: rustup target add aarch64-apple-ios aarch64-apple-ios-sim \
    x86_64-apple-ios\naarch64-apple-darwin x86_64-apple-darwin"
)]
pub(crate) struct Arguments {}

/// What an XCFramework has a library for each of, and the targets that make it up.
struct Platform {
    name: &'static str,
    targets: &'static [&'static str],
    /// Oldest system, as `ios/Package.swift` has it.
    oldest: (&'static str, &'static str),
}

const PLATFORMS: [Platform; 3] = [
    Platform {
        name: "ios",
        targets: &["aarch64-apple-ios"],
        oldest: ("IPHONEOS_DEPLOYMENT_TARGET", "16.0"),
    },
    Platform {
        name: "ios-simulator",
        targets: &["aarch64-apple-ios-sim", "x86_64-apple-ios"],
        oldest: ("IPHONEOS_DEPLOYMENT_TARGET", "16.0"),
    },
    Platform {
        name: "macos",
        targets: &["aarch64-apple-darwin", "x86_64-apple-darwin"],
        oldest: ("MACOSX_DEPLOYMENT_TARGET", "14.0"),
    },
];
const LIBRARY: &str = "libslmrec_ffi.a";
const PROFILE: &str = "mobile";
/// Where `ios/Package.swift` looks for it.
const OUTPUT: &str = "ios/SLMRecNative.xcframework";

pub(crate) fn run(_arguments: &Arguments) -> Result<()> {
    for tool in ["xcodebuild", "lipo"] {
        ensure!(
            apt::find(&[tool]).is_some(),
            "there is no {tool}: an XCFramework is built on a Mac with Xcode; hint: \
             `cargo xtask test-ios` tests the Swift sources on Linux"
        );
    }
    let target_dir = workspace::target_dir();
    let mut libraries = Vec::new();
    for platform in &PLATFORMS {
        for target in platform.targets {
            process::run(&mut build(target, platform.oldest))?;
        }
        let library = library_of(platform, &target_dir);
        let folder = library.parent().context("a file has a folder")?;
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        process::run(&mut merge(platform, &target_dir))?;
        libraries.push(library);
    }
    let output = workspace::root().join(OUTPUT);
    if output.exists() {
        fs::remove_dir_all(&output).with_context(|| output.display().to_string())?;
    }
    process::run(&mut assemble(&libraries, &output))?;
    println!("xcframework: {OUTPUT}");
    Ok(())
}

/// The static library only: a shared one would have to be linked, signed and embedded.
fn build(target: &str, oldest: (&str, &str)) -> Command {
    let mut cargo = workspace::cargo();
    cargo.args(["rustc", "--locked", "--package", "slmrec-ffi", "--lib"]);
    cargo.args(["--crate-type", "staticlib", "--profile", PROFILE]);
    cargo.args(["--target", target]).env(oldest.0, oldest.1);
    cargo
}

/// One file for all processors of a platform.
fn merge(platform: &Platform, target_dir: &Path) -> Command {
    let mut lipo = Command::new("lipo");
    lipo.arg("-create");
    for target in platform.targets {
        lipo.arg(target_dir.join(target).join(PROFILE).join(LIBRARY));
    }
    lipo.arg("-output").arg(library_of(platform, target_dir));
    lipo
}

fn library_of(platform: &Platform, target_dir: &Path) -> PathBuf {
    let folder = target_dir.join("xcframework").join(platform.name);
    folder.join(LIBRARY)
}

/// Without headers: Swift reads those in `ios/Sources/SLMRecC`, on every system.
fn assemble(libraries: &[PathBuf], output: &Path) -> Command {
    let mut xcodebuild = Command::new("xcodebuild");
    xcodebuild.arg("-create-xcframework");
    for library in libraries {
        xcodebuild.arg("-library").arg(library);
    }
    xcodebuild.arg("-output").arg(output);
    xcodebuild
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: &Command) -> String {
        process::display(command)
    }

    #[test]
    fn each_target_is_built_for_the_oldest_system() {
        let command = build("aarch64-apple-ios", PLATFORMS[0].oldest);
        assert!(
            words(&command).ends_with(
                "rustc --locked --package slmrec-ffi --lib --crate-type staticlib \
                 --profile mobile --target aarch64-apple-ios"
            ),
            "{}",
            words(&command)
        );
        let variable = ("IPHONEOS_DEPLOYMENT_TARGET".as_ref(), Some("16.0".as_ref()));
        assert!(command.get_envs().any(|found| found == variable));
    }

    #[test]
    fn processors_of_a_platform_become_one_library() {
        assert_eq!(
            words(&merge(&PLATFORMS[1], Path::new("/t"))),
            "lipo -create /t/aarch64-apple-ios-sim/mobile/libslmrec_ffi.a \
             /t/x86_64-apple-ios/mobile/libslmrec_ffi.a \
             -output /t/xcframework/ios-simulator/libslmrec_ffi.a"
        );
        let libraries = PLATFORMS.map(|platform| library_of(&platform, Path::new("/t")));
        assert_eq!(
            words(&assemble(&libraries, Path::new("/o.xcframework"))),
            "xcodebuild -create-xcframework -library /t/xcframework/ios/libslmrec_ffi.a \
             -library /t/xcframework/ios-simulator/libslmrec_ffi.a \
             -library /t/xcframework/macos/libslmrec_ffi.a -output /o.xcframework"
        );
    }

    /// The library must not want newer systems than the package that it goes into.
    #[test]
    fn the_package_names_the_same_systems_and_the_same_file() {
        let path = workspace::root().join("ios/Package.swift");
        let package = fs::read_to_string(path).expect("committed");
        for (system, platform) in [(".iOS(.v", 0), (".iOS(.v", 1), (".macOS(.v", 2)] {
            let oldest = PLATFORMS[platform].oldest.1.trim_end_matches(".0");
            assert!(package.contains(&format!("{system}{oldest})")), "{oldest}");
        }
        let file = OUTPUT.strip_prefix("ios/").expect("in the package");
        assert!(package.contains(&format!("path: \"{file}\"")));
    }
}
