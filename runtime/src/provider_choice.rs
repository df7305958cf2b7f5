//! Which execution provider runs a bundle on this machine.
//!
//! A provider that is there need not be right or fast: a graph cut into pieces between a phone's
//! accelerator and its CPU is often slower than the CPU alone, and 16-bit arithmetic can lose what
//! a bundle promises. So each one that the library has replays the bundle's samples once; a wrong or
//! slower one is rejected, and the choice is remembered for this bundle, library and machine.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use slmrec_core::{History, atomic};

use crate::engine::library;
use crate::error::RuntimeError;
use crate::options::{OpenOptions, Provider};
use crate::recommender::Recommender;

/// Name of the file with the choices.
pub const CHOICES_FILE: &str = "providers.json";
const FORMAT_VERSION: u32 = 1;
/// Choices that are kept; the oldest go.
const MAX_CHOICES: usize = 64;
/// Times that each sample is encoded, after one time that does not count.
const ROUNDS: usize = 3;
/// Share of the CPU's time below which another provider is worth what it costs to start.
const WORTH_IT: f64 = 0.9;

/// Where choices are remembered. The caller names both: nothing here reads the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderCache {
    /// A folder of the program; it is made when it is not there.
    pub folder: PathBuf,
    /// What tells this machine from others that share the folder.
    pub machine: String,
}

/// How a provider did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
pub enum TrialOutcome {
    /// The samples come out as the bundle promises.
    Right {
        /// Milliseconds of encoding a sample, the middle one.
        median_ms: f64,
    },
    /// They do not.
    Wrong {
        /// Smallest cosine of user vectors; `None` where one is no number.
        worst_cosine: Option<f32>,
        /// Mean overlap of top items.
        mean_overlap: f32,
    },
    /// It does not start or run.
    Failed {
        /// What it said.
        reason: String,
    },
}

/// A provider and how it did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProviderTrial {
    /// The provider.
    pub provider: Provider,
    /// How it did.
    #[serde(flatten)]
    pub outcome: TrialOutcome,
}

/// What was chosen, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProviderChoice {
    /// The provider that runs.
    pub chosen: Provider,
    /// Every provider of the library that was tried.
    pub trials: Vec<ProviderTrial>,
    /// Version of the library.
    pub library: String,
    /// The machine, as the caller calls it.
    pub machine: String,
    /// Whether it was remembered from an earlier run.
    #[serde(skip)]
    pub remembered: bool,
}

/// The file of choices.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Choices {
    format_version: u32,
    /// Newest last.
    choices: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    bundle_sha256: String,
    #[serde(flatten)]
    choice: ProviderChoice,
}

/// Opens a bundle with the provider that is right and fastest here.
///
/// # Errors
/// As [`Recommender::open`]; a folder that cannot be written.
pub(crate) fn open(
    path: &Path,
    options: &OpenOptions,
    cache: &ProviderCache,
) -> Result<Recommender, RuntimeError> {
    let with = |provider: Provider| {
        let options = OpenOptions {
            provider,
            ..options.clone()
        };
        Recommender::open_with_provider(path, &options)
    };
    let Ok(library) = library::load(&options.libraries) else {
        // What there is instead, or the error, is the engine's business.
        return with(Provider::Auto);
    };
    let providers = crate::engine::available_providers();
    let [_, _, ..] = providers[..] else {
        return with(Provider::Auto);
    };
    // By its library the CPU is there, and with it the hash of the bundle.
    let cpu = with(Provider::Cpu)?;
    let (bundle, version) = (cpu.bundle_sha256().to_owned(), library.version());
    let known = remembered(cache, &bundle).into_iter().find(|choice| {
        let here = (&choice.library, &choice.machine) == (&version, &cache.machine);
        here && providers.contains(&choice.chosen)
    });
    if let Some(choice) = known {
        let opened = match choice.chosen {
            Provider::Cpu => Ok(cpu),
            other => with(other),
        };
        if let Ok(mut recommender) = opened {
            recommender.set_provider_choice(choice);
            return Ok(recommender);
        }
    }
    let trials = try_all(&providers, with);
    let choice = ProviderChoice {
        chosen: choose(&trials),
        trials,
        library: version,
        machine: cache.machine.clone(),
        remembered: false,
    };
    remember(cache, bundle, &choice)?;
    let mut recommender = with(choice.chosen)?;
    recommender.set_provider_choice(choice);
    Ok(recommender)
}

/// Tries providers one after another; `open` gives a recommender that runs on one.
pub fn try_all(
    providers: &[Provider],
    open: impl Fn(Provider) -> Result<Recommender, RuntimeError>,
) -> Vec<ProviderTrial> {
    let trial = |&provider: &Provider| {
        let outcome = open(provider).and_then(|mut recommender| replay(&mut recommender));
        let failed = |error: RuntimeError| TrialOutcome::Failed {
            reason: error.to_string(),
        };
        ProviderTrial {
            provider,
            outcome: outcome.unwrap_or_else(failed),
        }
    };
    providers.iter().map(trial).collect()
}

fn replay(recommender: &mut Recommender) -> Result<TrialOutcome, RuntimeError> {
    let test = recommender.self_test()?;
    if !test.passed() {
        let worst = test.worst_cosine();
        return Ok(TrialOutcome::Wrong {
            worst_cosine: worst.is_finite().then_some(worst),
            mean_overlap: test.mean_overlap(),
        });
    }
    let samples = recommender.bundle_mut().samples()?.samples;
    let mut times = Vec::with_capacity(samples.len() * ROUNDS);
    for sample in samples {
        let history = History::from_items(sample.history);
        for round in 0..=ROUNDS {
            let started = Instant::now();
            recommender.user_vector(&history)?;
            if round > 0 {
                times.push(started.elapsed());
            }
        }
    }
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied();
    let median_ms = median.unwrap_or(Duration::MAX).as_secs_f64() * 1e3;
    Ok(TrialOutcome::Right { median_ms })
}

/// The fastest right one, and the CPU unless another is clearly faster; the CPU, too, where none is
/// right.
#[must_use]
pub fn choose(trials: &[ProviderTrial]) -> Provider {
    let right = |trial: &ProviderTrial| match trial.outcome {
        TrialOutcome::Right { median_ms } => Some((trial.provider, median_ms)),
        TrialOutcome::Wrong { .. } | TrialOutcome::Failed { .. } => None,
    };
    let cpu = trials
        .iter()
        .filter_map(right)
        .find(|(p, _)| *p == Provider::Cpu);
    let others = trials
        .iter()
        .filter_map(right)
        .filter(|(p, _)| *p != Provider::Cpu);
    let fastest = others.min_by(|a, b| a.1.total_cmp(&b.1));
    match (cpu, fastest) {
        (Some((_, cpu)), Some((other, time))) if time < WORTH_IT * cpu => other,
        (None, Some((other, _))) => other,
        _ => Provider::Cpu,
    }
}

/// The choices that were made for a bundle. A file that is damaged counts as none: the samples are
/// replayed again.
#[must_use]
pub fn remembered(cache: &ProviderCache, bundle_sha256: &str) -> Vec<ProviderChoice> {
    let entries = read(&cache.folder).choices.into_iter();
    let of_bundle = entries.filter(|entry| entry.bundle_sha256 == bundle_sha256);
    let choice = |entry: Entry| ProviderChoice {
        remembered: true,
        ..entry.choice
    };
    of_bundle.map(choice).collect()
}

/// Keeps a choice in place of an earlier one for the same bundle, library and machine.
///
/// # Errors
/// A folder that cannot be written.
pub fn remember(
    cache: &ProviderCache,
    bundle_sha256: String,
    choice: &ProviderChoice,
) -> Result<(), RuntimeError> {
    let path = cache.folder.join(CHOICES_FILE);
    let mut choices = read(&cache.folder);
    choices.format_version = FORMAT_VERSION;
    choices.choices.retain(|entry| {
        let other = (&entry.choice.library, &entry.choice.machine);
        entry.bundle_sha256 != bundle_sha256 || other != (&choice.library, &choice.machine)
    });
    choices.choices.push(Entry {
        bundle_sha256,
        choice: choice.clone(),
    });
    let most = choices.choices.len().saturating_sub(MAX_CHOICES);
    choices.choices.drain(..most);
    let written = serde_json::to_vec_pretty(&choices)
        .map_err(std::io::Error::from)
        .and_then(|json| {
            std::fs::create_dir_all(&cache.folder)?;
            atomic::write(&path, &json)
        });
    written.map_err(|source| RuntimeError::ProviderCache { path, source })
}

fn read(folder: &Path) -> Choices {
    let bytes = std::fs::read(folder.join(CHOICES_FILE)).unwrap_or_default();
    let choices: Choices = serde_json::from_slice(&bytes).unwrap_or_default();
    match choices.format_version {
        FORMAT_VERSION => choices,
        _ => Choices::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn right(provider: Provider, median_ms: f64) -> ProviderTrial {
        let outcome = TrialOutcome::Right { median_ms };
        ProviderTrial { provider, outcome }
    }

    fn wrong(provider: Provider) -> ProviderTrial {
        let outcome = TrialOutcome::Wrong {
            worst_cosine: None,
            mean_overlap: 0.5,
        };
        ProviderTrial { provider, outcome }
    }

    fn choice(chosen: Provider, library: &str) -> ProviderChoice {
        ProviderChoice {
            chosen,
            trials: vec![right(Provider::Cpu, 1.5), wrong(Provider::CoreMl)],
            library: library.into(),
            machine: "here".into(),
            remembered: false,
        }
    }

    #[test]
    fn wrong_and_slower_ones_are_rejected() {
        let (cpu, cuda) = (Provider::Cpu, Provider::Cuda);
        assert_eq!(choose(&[right(cpu, 2.0), right(cuda, 1.0)]), cuda);
        assert_eq!(
            choose(&[right(cpu, 2.0), right(cuda, 1.9)]),
            cpu,
            "not worth it"
        );
        assert_eq!(choose(&[right(cpu, 2.0), wrong(cuda)]), cpu);
        assert_eq!(choose(&[wrong(cpu), wrong(cuda)]), cpu);
        assert_eq!(choose(&[wrong(cpu), right(cuda, 9.0)]), cuda);
        let three = [
            right(cpu, 9.0),
            right(cuda, 2.0),
            right(Provider::Xnnpack, 1.0),
        ];
        assert_eq!(choose(&three), Provider::Xnnpack);
    }

    #[test]
    fn choices_are_kept_by_bundle_library_and_machine() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let cache = ProviderCache {
            folder: dir.path().join("made"),
            machine: "here".into(),
        };
        assert_eq!(remembered(&cache, "a"), []);
        for (bundle, library, chosen) in [
            ("a", "1", Provider::Cuda),
            ("b", "1", Provider::CoreMl),
            ("a", "2", Provider::Xnnpack),
            ("a", "1", Provider::Cpu),
        ] {
            remember(&cache, bundle.into(), &choice(chosen, library)).expect("written");
        }
        let found = remembered(&cache, "a");
        let chosen: Vec<_> = found
            .iter()
            .map(|c| (c.library.as_str(), c.chosen))
            .collect();
        assert_eq!(chosen, [("2", Provider::Xnnpack), ("1", Provider::Cpu)]);
        assert!(found.iter().all(|choice| choice.remembered));
        assert_eq!(found[0].trials, choice(Provider::Cpu, "1").trials);
    }

    #[test]
    fn the_oldest_go_and_damage_is_none() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let cache = ProviderCache {
            folder: dir.path().to_owned(),
            machine: "here".into(),
        };
        for n in 0..=MAX_CHOICES {
            let choice = choice(Provider::Cpu, "1");
            remember(&cache, n.to_string(), &choice).expect("written");
        }
        assert_eq!(remembered(&cache, "0"), []);
        assert_eq!(remembered(&cache, "1").len(), 1);
        std::fs::write(dir.path().join(CHOICES_FILE), b"{").expect("damaged");
        assert_eq!(remembered(&cache, "1"), []);
        remember(&cache, "1".into(), &choice(Provider::Cpu, "1")).expect("written");
        assert_eq!(remembered(&cache, "1").len(), 1);
    }
}
