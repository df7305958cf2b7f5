//! Between the runtime's types and the records.

use std::num::NonZeroUsize;
use std::time::Duration;

use slmrec_runtime as runtime;

use crate::error::SlmrecError;
use crate::limits;
use crate::records::{
    BundleInfo, Engine, Filter, OpenOptions, PopularItem, PopularItems, Provider, RankedCandidates,
    Reason, Recommendation, Recommendations, SelfTest,
};

/// Most threads of one run.
const MAX_THREADS: u32 = 64;

/// Counts are far below this; a larger one would be a fault that is better seen than wrapped.
pub(crate) fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

impl TryFrom<OpenOptions> for runtime::OpenOptions {
    type Error = SlmrecError;

    fn try_from(options: OpenOptions) -> Result<Self, SlmrecError> {
        let threads = Some(options.threads).filter(|threads| *threads <= MAX_THREADS);
        let threads = threads.and_then(|threads| NonZeroUsize::new(threads as usize));
        let threads = threads.ok_or_else(|| {
            let found = options.threads;
            SlmrecError::InvalidArgument(format!("{found} threads, expected 1 to {MAX_THREADS}"))
        })?;
        Ok(Self {
            engine: runtime::EngineChoice::Auto,
            provider: match options.provider {
                Provider::Auto => runtime::Provider::Auto,
                Provider::Cpu => runtime::Provider::Cpu,
                Provider::CoreMl => runtime::Provider::CoreMl,
                Provider::Xnnpack => runtime::Provider::Xnnpack,
            },
            threads,
            libraries: runtime::LibrarySearch {
                named: options.onnxruntime.map(Into::into),
                ..runtime::LibrarySearch::default()
            },
            provider_cache: None,
            prior: options.prior,
        })
    }
}

impl TryFrom<Filter> for runtime::FilterOptions {
    type Error = SlmrecError;

    fn try_from(filter: Filter) -> Result<Self, SlmrecError> {
        for (what, names) in [
            ("the block list", Some(&filter.block)),
            ("the allow list", filter.allow.as_ref()),
            ("the categories", filter.categories.as_ref()),
            ("the blocked categories", Some(&filter.block_categories)),
        ] {
            limits::check_ids(what, names.map(Vec::as_slice).unwrap_or_default())?;
        }
        Ok(Self {
            include_seen: filter.include_seen,
            block: filter.block,
            allow: filter.allow,
            categories: filter.categories,
            block_categories: filter.block_categories,
        })
    }
}

impl From<runtime::Recommendation> for Recommendation {
    fn from(item: runtime::Recommendation) -> Self {
        Self {
            rank: count(item.rank),
            id: item.id,
            title: item.title,
            score: item.score,
        }
    }
}

impl From<runtime::Recommendations> for Recommendations {
    fn from(found: runtime::Recommendations) -> Self {
        Self {
            milliseconds: milliseconds(found.timing.total()),
            items: found.items.into_iter().map(Into::into).collect(),
            shortfall: count(found.shortfall),
            unknown_items: found.unknown_items,
            unknown_filter_items: found.unknown_filter_items,
            unknown_categories: found.unknown_categories,
            used_items: count(found.used_items),
        }
    }
}

impl From<runtime::RankedCandidates> for RankedCandidates {
    fn from(ranked: runtime::RankedCandidates) -> Self {
        Self {
            items: ranked.items.into_iter().map(Into::into).collect(),
            unknown_candidates: ranked.unknown_candidates,
            unknown_items: ranked.unknown_items,
        }
    }
}

impl From<runtime::PopularItems> for PopularItems {
    fn from(found: runtime::PopularItems) -> Self {
        let item = |item: runtime::PopularItem| PopularItem {
            rank: count(item.rank),
            id: item.id,
            title: item.title,
        };
        Self {
            items: found.items.into_iter().map(item).collect(),
            shortfall: count(found.shortfall),
            unknown_filter_items: found.unknown_filter_items,
            unknown_categories: found.unknown_categories,
        }
    }
}

impl From<runtime::Reason> for Reason {
    fn from(reason: runtime::Reason) -> Self {
        Self {
            id: reason.id,
            title: reason.title,
            age: count(reason.age),
            drop: reason.drop,
        }
    }
}

impl From<&runtime::SelfTest> for SelfTest {
    fn from(test: &runtime::SelfTest) -> Self {
        Self {
            passed: test.passed(),
            samples: count(test.samples.len()),
            worst_cosine: test.worst_cosine(),
            min_cosine: test.min_cosine,
            mean_overlap: test.mean_overlap(),
            min_overlap: test.min_overlap,
            computed_by: test.computed_by.clone(),
        }
    }
}

impl From<&runtime::EngineInfo> for Engine {
    fn from(info: &runtime::EngineInfo) -> Self {
        Self {
            name: info.name.clone(),
            version: info.version.clone(),
            provider: info.provider.to_string(),
            threads: count(info.threads),
            incremental: info.incremental,
            notice: info.notice.clone(),
        }
    }
}

impl From<&mut runtime::Recommender> for BundleInfo {
    fn from(recommender: &mut runtime::Recommender) -> Self {
        let sha256 = recommender.bundle_mut().sha256().to_owned();
        let manifest = recommender.manifest();
        let number =
            |(name, value): (&String, &serde_json::Value)| Some((name.clone(), value.as_f64()?));
        Self {
            sha256,
            created_by: manifest.created_by.clone(),
            items: count(manifest.items.count),
            max_history: count(manifest.model.max_history),
            base: manifest.model.base.clone(),
            precision: manifest.precision.to_string(),
            data: manifest.data.name.clone(),
            metrics: manifest.metrics.iter().filter_map(number).collect(),
            prior: recommender.has_prior(),
            engine: recommender.engine().into(),
        }
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
