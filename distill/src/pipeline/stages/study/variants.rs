//! The students of each study.

use super::super::super::settings::{Online, TeacherChoice};
use super::super::super::{PipelineError, PipelineSettings, WorkDir};
use super::items::items;
use super::starts::starts;
use super::{Place, Study, Variant};
use crate::train::{BlockMap, DistillSettings};

/// The students that answer the question. None of them fails for blocks that do not divide.
pub(super) fn variants(
    settings: &PipelineSettings,
    study: &Study,
) -> Result<Vec<Variant>, PipelineError> {
    let mut found = Vec::new();
    match study {
        Study::Depth(depths) => {
            let map = &settings.distill.objective.block_map;
            if !map.is_empty() {
                return Err(PipelineError::Settings(format!(
                    "study depth: expected an empty distill.objective.block_map, since one map does \
                     not fit all depths, found {map}\nhint: --set distill.objective.block_map=[]"
                )));
            }
            for depth in depths {
                let mut own = settings.clone();
                own.distill.layers = *depth;
                let blocks = own.distill.objective.blocks;
                let blocks = largest_divisor(blocks, *depth, own.teach.layers);
                even_blocks(&mut own.distill.objective, blocks);
                found.extend(with_and_without(
                    &format!("depth {depth}"),
                    *depth as f64,
                    own,
                )?);
            }
        }
        Study::Losses => {
            found.push(alone("CE only".to_owned(), settings));
            let blended = settings.distill.teacher == TeacherChoice::Blend;
            for (name, objective) in objectives(&settings.distill.objective) {
                if blended && objective.lambda_block_kl > 0.0 {
                    // A blend does not read its inner states out.
                    continue;
                }
                let mut own = settings.clone();
                own.distill.objective = objective;
                found.push(taught(name.to_owned(), own)?);
            }
        }
        Study::Blocks(counts, maps) => {
            found.push(alone("CE only".to_owned(), settings));
            for blocks in counts {
                let mut own = settings.clone();
                even_blocks(&mut own.distill.objective, *blocks);
                found.push(taught(format!("blocks {blocks}"), own)?);
            }
            for map in maps {
                let mut own = settings.clone();
                own.distill.objective.block_map = map.clone();
                without_inner_blocks(&mut own.distill.objective);
                found.push(taught(format!("blocks {map}"), own)?);
            }
        }
        Study::Online => {
            found.push(alone("CE only".to_owned(), settings));
            for (name, online) in [
                ("teacher finished", Online::Off),
                ("teacher beside it, detached", Online::Detached),
                ("teacher beside it, joint", Online::Joint),
            ] {
                let mut own = settings.clone();
                own.distill.online = online;
                found.push(taught(name.to_owned(), own)?);
            }
        }
        Study::DataSize(shares) => {
            for share in shares {
                let mut own = settings.clone();
                own.distill.user_share = *share;
                own.distill.check()?;
                let percent = share * 100.0;
                found.extend(with_and_without(
                    &format!("{percent} % of users"),
                    percent,
                    own,
                )?);
            }
        }
        Study::Start => found.extend(starts(settings)),
        Study::Items => found.extend(items(settings)),
        Study::Readout => {}
        Study::Teacher => {
            found.push(alone("no teacher".to_owned(), settings));
            for (name, teacher) in [
                ("decoder", TeacherChoice::Decoder),
                ("blend", TeacherChoice::Blend),
            ] {
                let mut own = settings.clone();
                own.distill.teacher = teacher;
                own.distill.objective = only_kd(&settings.distill.objective);
                found.push(taught(name.to_owned(), own)?);
            }
        }
    }
    if found.is_empty() {
        let what = format!(
            "study {}: expected at least one value, found none",
            study.name()
        );
        return Err(PipelineError::Settings(what));
    }
    let names: Vec<&str> = found.iter().map(|v| v.name.as_str()).collect();
    if let Some((_, twice)) = (names.iter().enumerate()).find(|(at, n)| names[..*at].contains(n)) {
        return Err(PipelineError::Settings(format!(
            "study {}: expected each value once, found “{twice}” twice",
            study.name()
        )));
    }
    Ok(found)
}

/// A student without a teacher.
pub(super) fn alone(name: String, settings: &PipelineSettings) -> Variant {
    Variant {
        name,
        settings: settings.clone(),
        taught: false,
        against: None,
        place: None,
    }
}

/// The same student without the teacher and with it, as points of two lines.
fn with_and_without(
    name: &str,
    at: f64,
    settings: PipelineSettings,
) -> Result<[Variant; 2], PipelineError> {
    let alone = alone(format!("{name}, CE only"), &settings);
    let mut taught = taught(format!("{name}, distilled"), settings)?;
    taught.against = Some(alone.name.clone());
    let on = |line| Some(Place { line, at });
    Ok([
        Variant {
            place: on("CE only"),
            ..alone
        },
        Variant {
            place: on("distilled"),
            ..taught
        },
    ])
}

/// A student with a teacher. What it stores of the teacher gets a folder by what is stored, so that
/// variants which ask for the same share it.
fn taught(name: String, mut settings: PipelineSettings) -> Result<Variant, PipelineError> {
    let objective = &settings.distill.objective;
    objective.check()?;
    if !objective.needs_teacher() && objective.lambda_ms == 0.0 {
        return Err(PipelineError::Settings(format!(
            "study, {name}: expected an objective with a term beside cross-entropy, found none\n\
             hint: give one a weight, for example --set distill.objective.lambda_kd=1"
        )));
    }
    if settings.distill.cache_dir.is_none() {
        let states = match (objective.reads_states(), objective.block_map.is_empty()) {
            (false, _) => "logits".to_owned(),
            (true, true) => format!("blocks-{}", objective.blocks),
            (true, false) => format!("map-{}", objective.block_map).replace([':', ','], "-"),
        };
        let teacher = match settings.distill.teacher {
            TeacherChoice::Decoder => "decoder",
            TeacherChoice::Blend => "blend",
        };
        let users = match settings.distill.user_share {
            1.0 => String::new(),
            share => format!("-users-{share}"),
        };
        let folder = WorkDir::new(settings.work_dir.clone()).studies();
        settings.distill.cache_dir = Some(folder.join(format!("states-{teacher}-{states}{users}")));
    }
    Ok(Variant {
        name,
        settings,
        taught: true,
        against: None,
        place: None,
    })
}

/// Blocks of equal size.
fn even_blocks(objective: &mut DistillSettings, blocks: usize) {
    objective.blocks = blocks;
    objective.block_map = BlockMap::default();
    without_inner_blocks(objective);
}

/// Leaves out the terms of inner blocks where there are none.
fn without_inner_blocks(objective: &mut DistillSettings) {
    if objective.num_blocks() < 2 {
        objective.lambda_ms = 0.0;
        objective.lambda_block_kl = 0.0;
    }
}

/// The largest number up to `wanted` that divides both numbers of layers.
fn largest_divisor(wanted: usize, student: usize, teacher: usize) -> usize {
    let divides =
        |blocks: &usize| student.is_multiple_of(*blocks) && teacher.is_multiple_of(*blocks);
    (1..=wanted.max(1)).rev().find(divides).unwrap_or(1)
}

/// Each term alone and all together, with the weights of the settings, or the paper's where a term
/// has none.
fn objectives(chosen: &DistillSettings) -> Vec<(&'static str, DistillSettings)> {
    let paper = DistillSettings::default();
    let weight = |chosen: f64, default: f64| if chosen > 0.0 { chosen } else { default };
    let all = DistillSettings {
        lambda_cos: weight(chosen.lambda_cos, paper.lambda_cos),
        lambda_norm: weight(chosen.lambda_norm, paper.lambda_norm),
        lambda_ms: weight(chosen.lambda_ms, paper.lambda_ms),
        lambda_kd: weight(chosen.lambda_kd, 1.0),
        lambda_block_kl: 0.0,
        ..chosen.clone()
    };
    let none = DistillSettings {
        lambda_cos: 0.0,
        lambda_norm: 0.0,
        lambda_ms: 0.0,
        lambda_kd: 0.0,
        lambda_block_kl: 0.0,
        ..chosen.clone()
    };
    vec![
        (
            "+ cos",
            DistillSettings {
                lambda_cos: all.lambda_cos,
                ..none.clone()
            },
        ),
        (
            "+ norm",
            DistillSettings {
                lambda_norm: all.lambda_norm,
                ..none.clone()
            },
        ),
        (
            "+ ms",
            DistillSettings {
                lambda_ms: all.lambda_ms,
                ..none.clone()
            },
        ),
        (
            "+ kd",
            DistillSettings {
                lambda_kd: all.lambda_kd,
                ..none.clone()
            },
        ),
        (
            "+ block kl",
            DistillSettings {
                lambda_block_kl: weight(chosen.lambda_block_kl, 1.0),
                ..none
            },
        ),
        (
            "+ cos, norm, ms",
            DistillSettings {
                lambda_kd: 0.0,
                ..all.clone()
            },
        ),
        ("+ cos, norm, ms, kd", all),
    ]
}

fn only_kd(chosen: &DistillSettings) -> DistillSettings {
    DistillSettings {
        lambda_cos: 0.0,
        lambda_norm: 0.0,
        lambda_ms: 0.0,
        lambda_block_kl: 0.0,
        lambda_kd: if chosen.lambda_kd > 0.0 {
            chosen.lambda_kd
        } else {
            1.0
        },
        ..chosen.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(variants: &[Variant]) -> Vec<&str> {
        variants.iter().map(|v| v.name.as_str()).collect()
    }

    #[test]
    fn depths_get_blocks_that_divide_them() {
        let settings = PipelineSettings::default();
        let found = variants(&settings, &Study::Depth(vec![1, 3, 4])).expect("variants");
        assert_eq!(
            names(&found),
            [
                "depth 1, CE only",
                "depth 1, distilled",
                "depth 3, CE only",
                "depth 3, distilled",
                "depth 4, CE only",
                "depth 4, distilled"
            ]
        );
        let blocks: Vec<usize> = found
            .iter()
            .map(|v| v.settings.distill.objective.blocks)
            .collect();
        // The teacher has 8 layers: 3 has no divisor in common with it but 1.
        assert_eq!(blocks, [1, 1, 1, 1, 4, 4]);
        for variant in &found {
            let objective = &variant.settings.distill.objective;
            assert!(objective.blocks > 1 || objective.lambda_ms == 0.0);
            objective.check().expect("settings that work");
        }
    }

    #[test]
    fn each_term_stands_alone_once() {
        let settings = PipelineSettings::default();
        let found = variants(&settings, &Study::Losses).expect("variants");
        let weights: Vec<[bool; 5]> = (found.iter().skip(1))
            .map(|v| {
                let o = &v.settings.distill.objective;
                let weights = [
                    o.lambda_cos,
                    o.lambda_norm,
                    o.lambda_ms,
                    o.lambda_kd,
                    o.lambda_block_kl,
                ];
                weights.map(|w| w > 0.0)
            })
            .collect();
        assert_eq!(
            weights,
            [
                [true, false, false, false, false],
                [false, true, false, false, false],
                [false, false, true, false, false],
                [false, false, false, true, false],
                [false, false, false, false, true],
                [true, true, true, false, false],
                [true, true, true, true, false]
            ]
        );
        assert!(!found[0].taught && found[1..].iter().all(|v| v.taught));
    }

    #[test]
    fn states_are_shared_where_they_are_the_same() {
        let settings = PipelineSettings::default();
        let found = variants(&settings, &Study::Losses).expect("variants");
        let folder = |at: usize| found[at].settings.distill.cache_dir.clone();
        assert_eq!(folder(1), folder(2), "both read states of four blocks");
        assert_ne!(folder(1), folder(4), "logits alone");
        let blocks = variants(&settings, &Study::Blocks(vec![2, 4], Vec::new())).expect("variants");
        let folder = |at: usize| blocks[at].settings.distill.cache_dir.clone();
        assert_ne!(folder(1), folder(2));
    }

    #[test]
    fn a_value_twice_is_refused_before_anything_is_trained() {
        let settings = PipelineSettings::default();
        let error = variants(&settings, &Study::Depth(vec![2, 4, 2])).expect_err("twice");
        assert!(
            error.to_string().contains("“depth 2, CE only” twice"),
            "{error}"
        );
    }

    #[test]
    fn a_study_of_nothing_is_refused() {
        let mut settings = PipelineSettings::default();
        assert!(variants(&settings, &Study::Depth(Vec::new())).is_err());
        settings.distill.objective = only_kd(&settings.distill.objective);
        settings.distill.objective.lambda_kd = 0.0;
        let error = variants(&settings, &Study::Blocks(vec![2], Vec::new())).expect_err("no term");
        assert!(error.to_string().contains("hint:"), "{error}");
    }

    #[test]
    fn maps_stand_beside_numbers_and_fit_no_study_of_depths() {
        let mut settings = PipelineSettings::default();
        let map: BlockMap = "2:1,8:4".parse().expect("a map");
        let study = Study::Blocks(vec![2], vec![map.clone()]);
        let found = variants(&settings, &study).expect("variants");
        assert_eq!(names(&found), ["CE only", "blocks 2", "blocks 2:1,8:4"]);
        let folder = |at: usize| found[at].settings.distill.cache_dir.clone();
        assert_ne!(folder(1), folder(2));
        settings.distill.objective.block_map = map;
        assert!(variants(&settings, &Study::Depth(vec![4])).is_err());
        let found = variants(&settings, &Study::Blocks(vec![2], Vec::new())).expect("variants");
        assert!(found[1].settings.distill.objective.block_map.is_empty());
    }

    #[test]
    fn shares_have_states_and_a_range_of_their_own() {
        let settings = PipelineSettings::default();
        let study = Study::DataSize(vec![0.25, 1.0]);
        let found = variants(&settings, &study).expect("variants");
        let expected = [
            "25 % of users, CE only",
            "25 % of users, distilled",
            "100 % of users, CE only",
            "100 % of users, distilled",
        ];
        assert_eq!(names(&found), expected);
        let folder = |at: usize| found[at].settings.distill.cache_dir.clone();
        assert_ne!(folder(1), folder(3));
        assert!(variants(&settings, &Study::DataSize(vec![1.5])).is_err());
    }

    #[test]
    fn a_teacher_is_finished_or_learns() {
        let found = variants(&PipelineSettings::default(), &Study::Online).expect("variants");
        let modes: Vec<Online> = found.iter().map(|v| v.settings.distill.online).collect();
        assert_eq!(
            modes,
            [Online::Off, Online::Off, Online::Detached, Online::Joint]
        );
    }

    #[test]
    fn pairs_at_one_depth_are_compared_and_stand_on_two_lines() {
        let settings = PipelineSettings::default();
        let found = variants(&settings, &Study::Depth(vec![2, 4])).expect("variants");
        let against: Vec<Option<&str>> = found.iter().map(|v| v.against.as_deref()).collect();
        let expected = [
            None,
            Some("depth 2, CE only"),
            None,
            Some("depth 4, CE only"),
        ];
        assert_eq!(against, expected);
        let places: Vec<(&str, f64)> = (found.iter())
            .filter_map(|v| v.place.as_ref().map(|place| (place.line, place.at)))
            .collect();
        let expected = [
            ("CE only", 2.0),
            ("distilled", 2.0),
            ("CE only", 4.0),
            ("distilled", 4.0),
        ];
        assert_eq!(places, expected);
    }
}
