//! What a bundle is to be.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use slmrec_core::manifest::Precision;

use super::super::PipelineError;

/// `[export]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ExportStage {
    /// Precision of the weights.
    pub precision: Precision,
    /// Whether an int8 bundle also carries a graph that every engine runs.
    pub portable: bool,
    /// Whether the bundle gets the transition prior, where it helps on the validation targets.
    pub prior: bool,
    /// Whether int8 is chosen by how it ranks the validation targets, and refused where it ranks too
    /// badly. Otherwise its cheapest form is taken unmeasured.
    pub certificate: bool,
    /// Largest share of NDCG@10 that int8 may lose.
    pub max_ndcg_drop: f64,
    /// How many users are asked, evenly spread over the dataset; 0 for all.
    pub certificate_users: usize,
    /// Whether all forms are measured, not only until one passes.
    pub all_forms: bool,
    /// Whether weights of four bits are tried first: the smallest bundle, slow over long histories.
    pub four_bits: bool,
    /// Where the bundle is to run: not every form is right on every processor.
    pub target: Target,
    /// The bundle file.
    pub output: PathBuf,
}

/// Processors that a bundle is made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
pub enum Target {
    /// 64-bit x86, with AVX2 or better.
    #[serde(rename = "x86-64")]
    #[value(name = "x86-64")]
    X86_64,
    /// 64-bit ARM: phones.
    #[serde(rename = "arm64")]
    #[value(name = "arm64")]
    Arm64,
    /// Both.
    #[default]
    #[serde(rename = "any")]
    #[value(name = "any")]
    Any,
}

impl ExportStage {
    /// Whether figures are within their ranges.
    ///
    /// # Errors
    /// Names the setting.
    pub fn check(&self) -> Result<(), PipelineError> {
        if !(0.0..=1.0).contains(&self.max_ndcg_drop) {
            return Err(PipelineError::Settings(format!(
                "setting export.max_ndcg_drop: expected a share in 0..=1, found {}",
                self.max_ndcg_drop
            )));
        }
        // They are one of the forms that the certificate chooses among.
        let chosen = self.precision == Precision::Int8 && self.certificate;
        if self.four_bits && !chosen {
            return Err(PipelineError::Settings(format!(
                "setting export.four_bits: expected export.precision int8 and a certificate beside it, found {}{}\n\
                 hint: leave out --four-bits, or the flag that asks for something else",
                self.precision,
                if self.certificate {
                    ""
                } else {
                    " without a certificate"
                },
            )));
        }
        Ok(())
    }
}

impl Default for ExportStage {
    fn default() -> Self {
        Self {
            precision: Precision::Int8,
            portable: false,
            prior: true,
            certificate: true,
            max_ndcg_drop: 0.01,
            certificate_users: 2000,
            all_forms: false,
            four_bits: false,
            target: Target::Any,
            output: PathBuf::from("student.slmrec"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_drop_is_a_share() {
        for (max_ndcg_drop, right) in [(0.0, true), (1.0, true), (-0.1, false), (f64::NAN, false)] {
            let stage = ExportStage {
                max_ndcg_drop,
                ..ExportStage::default()
            };
            assert_eq!(stage.check().is_ok(), right, "{max_ndcg_drop}");
        }
    }

    #[test]
    fn four_bits_are_a_form_of_int8_that_is_measured() {
        for (precision, certificate, right) in [
            (Precision::Int8, true, true),
            (Precision::Int8, false, false),
            (Precision::Fp16, true, false),
        ] {
            let stage = ExportStage {
                precision,
                certificate,
                four_bits: true,
                ..ExportStage::default()
            };
            assert_eq!(stage.check().is_ok(), right, "{precision} {certificate}");
        }
    }
}
