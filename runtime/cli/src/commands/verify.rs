//! `slmrec-run verify`: is the bundle whole, and does this machine give what it promises?

use comfy_table::Cell;
use serde::Serialize;
use slmrec_runtime::{ProviderChoice, SelfTest};

use crate::arguments::{Format, VerifyArguments};
use crate::output::{self, number, say};
use crate::report::{self, EngineReport};

#[derive(Serialize)]
struct Report {
    passed: bool,
    engine: EngineReport,
    /// How the provider was chosen, where there was a choice.
    #[serde(skip_serializing_if = "Option::is_none")]
    provider_choice: Option<ProviderChoice>,
    members: usize,
    samples: usize,
    computed_by: String,
    worst_cosine: f32,
    min_cosine: f32,
    mean_overlap: f32,
    min_overlap: f32,
}

pub(crate) fn run(arguments: &VerifyArguments) -> anyhow::Result<bool> {
    let mut recommender = super::open_without_packs(&arguments.bundle, &arguments.engine)?;
    let engine = EngineReport::from(recommender.engine());
    engine.say();
    recommender.bundle_mut().verify_members()?;
    // The samples are the bundle's own: packs change what they give.
    let test = recommender.self_test()?;
    super::apply_packs(&mut recommender, &arguments.engine)?;
    let mut report = Report::new(engine, recommender.manifest().members.len(), &test);
    report.provider_choice = recommender.provider_choice().cloned();
    let text = match arguments.format.format {
        Format::Json => output::json(&report)?,
        Format::Table => report.table(),
    };
    output::print(&text)?;
    if !report.passed {
        say("error: the samples do not come out as the bundle promises on this engine");
    }
    Ok(report.passed)
}

impl Report {
    fn new(engine: EngineReport, members: usize, test: &SelfTest) -> Self {
        Self {
            passed: test.passed(),
            engine,
            provider_choice: None,
            members,
            samples: test.samples.len(),
            computed_by: test.computed_by.clone(),
            worst_cosine: test.worst_cosine(),
            min_cosine: test.min_cosine,
            mean_overlap: test.mean_overlap(),
            min_overlap: test.min_overlap,
        }
    }

    fn table(&self) -> String {
        let mut table = output::table(&["Check", "Found", "Needed", ""]);
        let verdict = |passed: bool| Cell::new(if passed { "ok" } else { "FAILED" });
        table.add_row([
            Cell::new("members with the right size and SHA-256"),
            number(self.members),
            number(self.members),
            verdict(true),
        ]);
        for (name, found, needed) in [
            (
                "smallest cosine of user vectors",
                self.worst_cosine,
                self.min_cosine,
            ),
            (
                "mean overlap of top items",
                self.mean_overlap,
                self.min_overlap,
            ),
        ] {
            table.add_row([
                Cell::new(format!("{name}, {} samples", self.samples)),
                number(format!("{found:.5}")),
                number(format!("{needed:.5}")),
                verdict(found >= needed),
            ]);
        }
        let choice = self.provider_choice.iter().map(report::provider_table);
        std::iter::once(format!("{table}\n"))
            .chain(choice)
            .collect()
    }
}
