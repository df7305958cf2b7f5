//! Which eight bits: forms of quantization, measured by how they rank the validation targets, until
//! one loses no more than is allowed.

use std::collections::HashSet;
use std::path::Path;

use slmrec_core::certificate::{Certificate, Measured, Quantization};
use slmrec_core::manifest::Precision;
use slmrec_core::metrics::Metric;
use slmrec_core::{RowType, Split, bootstrap};
use slmrec_export::ExportOptions;

use super::super::settings::Target;
use super::super::stage::io_error;
use super::super::{PipelineError, WorkDir};
use super::Context;
use super::runner::{BundleRun, MeasuredBundle};

/// Seed of the intervals.
const SEED: u64 = 42;
const NDCG: Metric = Metric::Ndcg(10);

/// Measures what the target can run, cheapest first, and gives the certificate of the first form
/// that passes, or of the best one of all that were measured where `all_forms` is set.
///
/// # Errors
/// None that passes; no `slmrec-run`, or one that fails.
pub(super) fn certify(context: &Context<'_>, student: &Path) -> Result<Certificate, PipelineError> {
    let section = &context.settings.export;
    let folder = tempfile::tempdir_in(context.work().root())
        .map_err(|e| io_error(context.work().root(), e))?;
    let trial = Trial {
        context,
        student,
        folder: folder.path(),
    };
    context
        .reporter
        .say("export: ranks the validation targets in 32-bit floats");
    let (_, reference) = trial.measure(&ExportOptions {
        precision: Precision::Fp32,
        ..ExportOptions::default()
    })?;
    let reference_ndcg_10 = mean(&values(&reference));
    let mut measured: Vec<Measured> = Vec::new();
    for (quantization, item_rows) in forms(context, section.target) {
        let form = trial.form(quantization, item_rows, &reference)?;
        say(context, &form, reference_ndcg_10);
        let passes = form.drop(reference_ndcg_10) <= section.max_ndcg_drop;
        measured.push(form);
        if passes && !section.all_forms {
            break;
        }
    }
    let passing = measured
        .iter()
        .position(|form| form.drop(reference_ndcg_10) <= section.max_ndcg_drop);
    let Some(chosen) = passing else {
        return Err(PipelineError::Quantization {
            table: table(&measured, reference_ndcg_10),
            max: section.max_ndcg_drop,
        });
    };
    let chosen = measured.remove(chosen);
    Ok(Certificate {
        split: Split::Validation,
        users: reference.ranks.seen_removed.len(),
        reference_ndcg_10,
        reference_ms: reference.latency_ms.median,
        max_ndcg_drop: section.max_ndcg_drop,
        chosen,
        others: measured,
    })
}

/// Forms that the target runs, from the cheapest to run to the dearest.
fn forms(context: &Context<'_>, target: Target) -> Vec<(Quantization, RowType)> {
    let mut quantizations = vec![
        Quantization::Dynamic,
        Quantization::DynamicHalfDown,
        Quantization::DynamicRows,
        Quantization::WeightsOnly,
    ];
    match target {
        Target::Arm64 if signed_products_are_exact() => {
            quantizations.insert(0, Quantization::DynamicSigned);
        }
        Target::Arm64 => context.reporter.say(
            "export: dynamic-signed, the fastest form on ARM, is not tried: its sums saturate on \
             this machine's processor, so it cannot be measured here",
        ),
        Target::X86_64 | Target::Any => {}
    }
    // Who asks for them means them, whatever else is cheap.
    if context.settings.export.four_bits {
        quantizations.insert(0, Quantization::Blocks4);
    }
    let rows = [RowType::Int8, RowType::F16];
    (quantizations.into_iter())
        .flat_map(|quantization| rows.map(|rows| (quantization, rows)))
        .collect()
}

/// Whether products of unsigned and signed bytes are summed in 32 bits on this processor.
fn signed_products_are_exact() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        std::arch::is_x86_feature_detected!("avx512vnni")
            || std::arch::is_x86_feature_detected!("avxvnni")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        cfg!(target_arch = "aarch64")
    }
}

/// Where candidates are written and measured.
struct Trial<'a> {
    context: &'a Context<'a>,
    student: &'a Path,
    folder: &'a Path,
}

impl Trial<'_> {
    /// Bytes of the bundle, and how it ranks.
    fn measure(&self, options: &ExportOptions) -> Result<(u64, MeasuredBundle), PipelineError> {
        if self.context.stop.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(PipelineError::Interrupted);
        }
        let dataset = WorkDir::finished(self.context.work().dataset(), "prepare")?;
        let bundle = self.folder.join("candidate.slmrec");
        let report = slmrec_export::export(self.student, &dataset, options, &bundle)?;
        let run = BundleRun {
            bundle: &bundle,
            split: Split::Validation,
            users: self.context.settings.export.certificate_users,
            lists: true,
            ..BundleRun::default()
        };
        Ok((report.bytes, run.measure(self.context)?))
    }

    fn form(
        &self,
        quantization: Quantization,
        item_rows: RowType,
        reference: &MeasuredBundle,
    ) -> Result<Measured, PipelineError> {
        let (bytes, found) = self.measure(&ExportOptions {
            precision: Precision::Int8,
            quantization,
            item_rows: Some(item_rows),
            ..ExportOptions::default()
        })?;
        let (exact, ranks) = (&reference.ranks.seen_removed, &found.ranks.seen_removed);
        let difference = bootstrap::paired_difference(ranks, exact, NDCG, SEED);
        let difference = difference.ok_or_else(|| {
            PipelineError::Runner("it measured other users than before".to_owned())
        })?;
        Ok(Measured {
            quantization,
            item_rows,
            ndcg_10: mean(&values(&found)),
            difference,
            overlap_10: overlap(&found.lists, &reference.lists),
            worst_tenth: worst_tenth(&values(&found), &values(reference)),
            bytes,
            ms: found.latency_ms.median,
        })
    }
}

/// NDCG@10 of every user.
fn values(measured: &MeasuredBundle) -> Vec<f64> {
    let ranks = measured.ranks.seen_removed.iter();
    ranks.map(|&rank| NDCG.of_rank(rank as usize)).collect()
}

/// 0 without values.
fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// Mean share of the reference's lists that is found; users without a list are left out.
fn overlap(found: &[Vec<String>], reference: &[Vec<String>]) -> f64 {
    let shares: Vec<f64> = (found.iter().zip(reference))
        .filter(|(_, expected)| !expected.is_empty())
        .map(|(found, expected)| {
            let found: HashSet<&String> = found.iter().collect();
            let common = expected.iter().filter(|id| found.contains(id)).count();
            common as f64 / expected.len() as f64
        })
        .collect();
    mean(&shares)
}

/// Mean difference of the tenth of the users (at least one) who lose most.
fn worst_tenth(found: &[f64], reference: &[f64]) -> f64 {
    let mut differences: Vec<f64> = found.iter().zip(reference).map(|(f, r)| f - r).collect();
    differences.sort_unstable_by(f64::total_cmp);
    differences.truncate(differences.len().div_ceil(10));
    mean(&differences)
}

fn say(context: &Context<'_>, form: &Measured, reference: f64) {
    let line = format!("export: {}", line(form, reference));
    context.reporter.say(&line);
}

fn line(form: &Measured, reference: f64) -> String {
    format!(
        "{}, {} item rows: NDCG@10 {:.4} of {reference:.4} ({:+.2} %), top-10 overlap {:.3}, worst tenth {:+.4}, {:.1} MB, {:.2} ms",
        form.quantization,
        form.item_rows,
        form.ndcg_10,
        -100.0 * form.drop(reference),
        form.overlap_10,
        form.worst_tenth,
        form.bytes as f64 / 1e6,
        form.ms,
    )
}

fn table(measured: &[Measured], reference: f64) -> String {
    let lines: Vec<String> = measured
        .iter()
        .map(|form| format!("  {}", line(form, reference)))
        .collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_counts_what_is_still_there_whatever_its_place() {
        let list = |ids: &[&str]| ids.iter().map(|&id| id.to_owned()).collect::<Vec<_>>();
        let reference = [list(&["a", "b"]), list(&["c", "d"]), list(&[])];
        let found = [list(&["b", "a"]), list(&["c", "x"]), list(&["y"])];
        assert_eq!(overlap(&found, &reference), 0.75);
        assert_eq!(overlap(&[], &[]), 0.0);
    }

    #[test]
    fn the_worst_tenth_is_of_those_who_lose_most() {
        let reference: Vec<f64> = vec![1.0; 20];
        let mut found = reference.clone();
        (found[3], found[7], found[9]) = (0.0, 0.5, 0.9);
        assert_eq!(worst_tenth(&found, &reference), -0.75);
        assert_eq!(worst_tenth(&[], &[]), 0.0);
    }
}
