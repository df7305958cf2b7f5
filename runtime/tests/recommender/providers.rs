//! Providers that are right, wrong, slow or do not start, as encoders of our own.

use std::thread::sleep;
use std::time::Duration;

use slmrec_runtime::TrialOutcome;
use slmrec_runtime::provider_choice::{choose, try_all};

use super::*;

/// A provider that runs, but slowly.
fn slowly(mean: Vec<f32>) -> Vec<f32> {
    sleep(Duration::from_millis(5));
    mean
}

fn outcomes(answers: &[(Provider, Option<Answer>)]) -> (Vec<TrialOutcome>, Provider) {
    let providers: Vec<Provider> = answers.iter().map(|(provider, _)| *provider).collect();
    let trials = try_all(&providers, |provider| {
        let answer = answers.iter().find(|(of, _)| *of == provider);
        match answer.and_then(|(_, answer)| *answer) {
            Some(answer) => open(manifest(), &samples(), answer),
            None => Err(RuntimeError::ProviderFailed {
                provider,
                reason: "no such device".into(),
            }),
        }
    });
    let tried: Vec<Provider> = trials.iter().map(|trial| trial.provider).collect();
    assert_eq!(tried, providers);
    let chosen = choose(&trials);
    (
        trials.into_iter().map(|trial| trial.outcome).collect(),
        chosen,
    )
}

#[test]
fn a_wrong_and_an_absent_provider_are_rejected() {
    let (found, chosen) = outcomes(&[
        (Provider::Cpu, Some(slowly)),
        (
            Provider::CoreMl,
            Some(|mean| mean.iter().map(|v| v - 2.0).collect()),
        ),
        (Provider::Xnnpack, Some(|_| vec![f32::NAN, 0.0])),
        (Provider::Cuda, None),
    ]);
    assert_eq!(chosen, Provider::Cpu);
    assert!(matches!(found[0], TrialOutcome::Right { .. }), "{found:?}");
    assert!(
        matches!(found[1], TrialOutcome::Wrong { worst_cosine: Some(cosine), .. } if cosine < 0.5),
        "{found:?}"
    );
    assert!(
        matches!(&found[2], TrialOutcome::Failed { .. }),
        "{found:?}"
    );
    assert!(
        matches!(&found[3], TrialOutcome::Failed { reason } if reason.contains("no such device")),
        "{found:?}"
    );
}

#[test]
fn the_faster_right_one_is_chosen() {
    let fast: Answer = |mean| mean;
    for (cpu, cuda, expected) in [
        (slowly as Answer, fast, Provider::Cuda),
        (fast, slowly as Answer, Provider::Cpu),
    ] {
        let (found, chosen) = outcomes(&[(Provider::Cpu, Some(cpu)), (Provider::Cuda, Some(cuda))]);
        assert_eq!(chosen, expected, "{found:?}");
    }
}
