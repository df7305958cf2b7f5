//! `slmrec-distill fetch`: what is fetched, from where, under which licence.

use std::path::PathBuf;

use super::args::{Fetch, OutputFormat};
use super::print;
use crate::fetch::{self, Artifact, FetchStep};
use crate::pipeline::Reporter;

/// Where fetched files lie: `SLMREC_CACHE`, or the person's cache folder, or one here.
pub(super) fn cache_dir() -> PathBuf {
    fetch::default_cache_dir(|name| std::env::var_os(name))
        .unwrap_or_else(|| PathBuf::from(".slmrec-cache"))
}

pub(super) fn run(args: &Fetch, reporter: &dyn Reporter) -> anyhow::Result<()> {
    let Some(name) = &args.name else {
        return list(args.format);
    };
    let artifact: Artifact = name.parse()?;
    let fetched = fetch::fetch(artifact, &cache_dir(), &|step| match step {
        FetchStep::Checking => {}
        FetchStep::Downloading { bytes } => reporter.say(&format!(
            "fetch: {name}: {:.0} MB from {}",
            bytes as f64 / 1e6,
            artifact.info().source
        )),
        FetchStep::Extracting => reporter.say(&format!("fetch: {name}: checking and extracting")),
    })?;
    reporter.say(fetched.info.notice);
    match args.format {
        OutputFormat::Json => print::json(&serde_json::json!({
            "name": fetched.info.name,
            "dir": fetched.folder,
            "files": fetched.files,
            "licence": fetched.info.licence,
            "downloaded": fetched.downloaded,
        })),
        OutputFormat::Table => {
            let lines: Vec<String> = fetched
                .files
                .iter()
                .map(|file| file.display().to_string())
                .collect();
            print::out(&lines.join("\n"))
        }
    }
}

fn list(format: OutputFormat) -> anyhow::Result<()> {
    if format == OutputFormat::Json {
        let all: Vec<_> = (fetch::list().iter())
            .map(|info| {
                serde_json::json!({
                    "name": info.name,
                    "description": info.description,
                    "licence": info.licence,
                    "source": info.source,
                    "download_bytes": info.download_bytes,
                })
            })
            .collect();
        return print::json(&all);
    }
    let mut table = print::table(&["name", "what", "MB", "licence", "from"]);
    for info in fetch::list() {
        table.add_row([
            info.name.to_owned(),
            info.description.to_owned(),
            format!("{:.0}", info.download_bytes as f64 / 1e6),
            info.licence.to_owned(),
            info.source.to_owned(),
        ]);
    }
    print::out(&table.to_string())
}
