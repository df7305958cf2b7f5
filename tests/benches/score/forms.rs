//! One product in each form that a quantized graph could have, in ONNX Runtime: why export tries the
//! forms that it tries.

use std::cell::RefCell;
use std::error::Error;

use slmrec_tests::bench::process::Process;
use slmrec_tests::bench::{Row, Timed, in_turns};

const WARM_UP: usize = 5;
const ROUNDS: usize = 40;
/// The worker's forms; the first is what the others are compared with.
const FORMS: [&str; 5] = ["dynamic", "static", "blocks-8", "blocks-4", "fp32"];

/// Rows for one appended item and for a history of 50.
pub(super) fn rows() -> Result<Vec<Row>, Box<dyn Error>> {
    let mut command = super::worker("forms_worker.py")?;
    let python = RefCell::new(Process::start("ONNX Runtime", &mut command, 1)?);
    let python = &python;
    let mut rows = Vec::new();
    for count in [1, 50] {
        let mut subjects: Vec<Timed<'_, Box<dyn Error>>> = (FORMS.into_iter())
            .map(|form| {
                let line = format!("run {form} {count}");
                let run = move || Ok(python.borrow_mut().tell(&line)?.cpu_ms);
                Box::new(run) as Timed<'_, Box<dyn Error>>
            })
            .collect();
        let times = in_turns(WARM_UP, ROUNDS, &mut subjects)?;
        rows.extend(FORMS.iter().zip(&times).map(|(form, own)| {
            let case = format!("product of {count} x 576 with 576 x 1536, {form}");
            let row = Row::new(case, "CPU ms", own.median()).spread(own);
            row.against(FORMS[0], times[0].median())
        }));
    }
    Ok(rows)
}
