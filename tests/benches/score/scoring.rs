//! The time of an answer.

use std::cell::RefCell;
use std::error::Error;
use std::hint::black_box;
use std::path::Path;

use slmrec_core::manifest::Readout;
use slmrec_runtime::{EngineChoice, FilterOptions, HistoryState, Recommender, RuntimeError};
use slmrec_tests::bench::machine::Memory;
use slmrec_tests::bench::process::Process;
use slmrec_tests::bench::{Row, Samples, Timed, in_turns, timed};

use super::floors::Floors;
use super::student::{Student, history, id, open};

const WARM_UP: usize = 3;
const ROUNDS: usize = 30;
const K: usize = 10;
/// Two ways to the same user vector may differ by this much, relative to its length.
const TOLERANCE: f64 = 1e-4;

type Failure = Box<dyn Error>;

const PLAIN: &str = "plain fp32 export, ONNX Runtime";
const PLAIN_INT8: &str = "plain export, quantize_dynamic";
const TRACT: &str = "tract, our fp32 graph";
const EAGER: &str = "PyTorch eager";
const COMPILE: &str = "PyTorch compile";
const EAGER_APPEND: &str = "PyTorch eager, keys and values kept";
const SASREC: &str = "SASRec, PyTorch eager";
const READ_INT8: &str = "reading the int8 weights once";
const READ_FP32: &str = "reading the fp32 weights once";

/// One student and one length of history.
pub(super) struct Case<'a> {
    pub(super) student: &'a Student,
    pub(super) items: u32,
}

impl Case<'_> {
    pub(super) fn rows(&self, python: &mut Process, floors: Floors) -> Result<Vec<Row>, Failure> {
        let compiles = self.check_python(python)?;
        let python = &RefCell::new(python);
        let student = self.student;
        let ask = |kind: &'static str| self.torch(python, kind);
        let mut subjects: Vec<(&str, Timed<'_, Failure>)> = vec![
            ("int8", self.whole(student.open(&student.int8)?)),
            ("fp32", self.whole(student.open(&student.fp32)?)),
            ("int8 append", self.append(&student.int8, true)?),
            ("four bits", self.whole(student.open(&student.four_bits)?)),
            ("four bits append", self.append(&student.four_bits, true)?),
            ("fp32 append", self.append(&student.fp32, true)?),
            ("fp32 step", self.append(&student.fp32, false)?),
            (PLAIN, self.whole(student.open(&student.plain)?)),
            (PLAIN_INT8, self.whole(student.open(&student.plain_int8)?)),
            (TRACT, self.whole(open(&student.fp32, EngineChoice::Tract)?)),
            (EAGER, ask("eager")),
            (EAGER_APPEND, ask("append")),
            (SASREC, ask("sasrec")),
            (READ_INT8, read(student.weights())),
            (READ_FP32, read(student.weights() * 4)),
        ];
        if compiles {
            subjects.push((COMPILE, ask("compile")));
        }
        let (names, mut subjects): (Vec<&str>, Vec<_>) = subjects.into_iter().unzip();
        let times = in_turns(WARM_UP, ROUNDS, &mut subjects)?;
        let times = Times { names, times };
        Ok(self.report(&times, floors))
    }

    /// A whole history in one of our runtimes.
    fn whole(&self, mut recommender: Recommender) -> Timed<'static, Failure> {
        let history = history(self.items);
        timed(move || {
            let found = recommender.recommend(&history, K, &FilterOptions::default())?;
            black_box(found);
            Ok(())
        })
    }

    /// The last item, appended to a copy of a state that has run all others; copying it is measured
    /// too. With the best items, or the user vector alone.
    fn append(&self, bundle: &Path, best: bool) -> Result<Timed<'static, Failure>, Failure> {
        let mut recommender = self.student.open(bundle)?;
        let kept = caught_up(&mut recommender, self.items - 1)?;
        let item = id(self.items);
        Ok(timed(move || {
            let mut state = kept.clone();
            state.append(&recommender, &item)?;
            if best {
                let filter = FilterOptions::default();
                black_box(state.recommend(&mut recommender, K, &filter)?);
            } else {
                black_box(state.user_vector(&mut recommender)?);
            }
            Ok(())
        }))
    }

    fn torch<'a>(
        &self,
        python: &'a RefCell<&mut Process>,
        kind: &'static str,
    ) -> Timed<'a, Failure> {
        let line = format!("run {kind} {}", self.items);
        Box::new(move || Ok(python.borrow_mut().tell(&line)?.cpu_ms))
    }

    /// Whether PyTorch's user vectors, and those of the other graphs, are those of our fp32 bundle;
    /// and whether PyTorch can compile here.
    fn check_python(&self, python: &mut Process) -> Result<bool, Failure> {
        let student = self.student;
        let history = history(self.items);
        let ours = student.open(&student.fp32)?.user_vector(&history)?;
        let plain = student.open(&student.plain)?.user_vector(&history)?;
        same(PLAIN, &plain, &ours)?;
        let tract = open(&student.fp32, EngineChoice::Tract)?.user_vector(&history)?;
        same(TRACT, &tract, &ours)?;
        for (bundle, what) in [
            (&student.int8, "int8, ours"),
            (&student.four_bits, "four bits, ours"),
            (&student.plain_int8, PLAIN_INT8),
        ] {
            let vector = student.open(bundle)?.user_vector(&history)?;
            eprintln!("    {what}: cosine with fp32 {:.4}", cosine(&vector, &ours));
        }
        let mut vector = |kind: &str| -> Result<Vec<f32>, Failure> {
            let line = python.ask(&format!("vector {kind} {}", self.items))?;
            let values = line.split_whitespace().map(str::parse);
            Ok(values.collect::<Result<_, _>>()?)
        };
        same(EAGER, &vector("eager")?, &ours)?;
        same(EAGER_APPEND, &vector("append")?, &ours)?;
        match vector("compile") {
            Ok(compiled) => same(COMPILE, &compiled, &ours).map(|()| true),
            Err(reason) => {
                eprintln!("    NOTICE: torch.compile was not measured: {reason}");
                Ok(false)
            }
        }
    }

    fn report(&self, times: &Times<'_>, floors: Floors) -> Vec<Row> {
        let (student, items) = (self.student, self.items);
        let response = student.readout == Readout::Response;
        let full_length = items == 50;
        let goal = |row: Row, goal: f64, here: bool| if here { row.goal(goal) } else { row };
        let case = |what: &str| format!("{what}, {items} items, {}", student.name);
        let mut rows = Vec::new();
        let mut compare = |ours: &str, what: &str, peers: &[(&str, f64, bool)]| {
            for (peer, most, here) in peers {
                if let Some(row) = times.row(&case(what), ours, peer) {
                    rows.push(goal(row, *most, *here));
                }
            }
        };
        compare(
            "int8",
            "int8 bundle",
            &[
                (PLAIN, 0.33, response && full_length),
                (EAGER, 0.30, response && full_length),
                (COMPILE, 0.0, false),
                (PLAIN_INT8, 0.0, false),
                (TRACT, 0.0, false),
                (SASREC, 0.0, false),
            ],
        );
        let same_precision = [PLAIN, EAGER, COMPILE, TRACT].map(|peer| (peer, 0.0, false));
        compare("fp32", "fp32 bundle", &same_precision);
        let most = if response { 0.06 } else { 0.035 };
        let kept = [
            (PLAIN, most, full_length),
            (EAGER_APPEND, 0.0, false),
            (READ_INT8, 0.0, false),
        ];
        compare("int8 append", "one appended item, int8", &kept);
        let of_int8 = |ours| [(PLAIN, 0.0, false), (ours, 0.0, false)];
        compare("four bits", "four-bit bundle", &of_int8("int8"));
        let appended = "one appended item, four bits";
        compare("four bits append", appended, &of_int8("int8 append"));
        let kept = [PLAIN, EAGER_APPEND].map(|peer| (peer, 0.0, false));
        compare("fp32 append", "one appended item, fp32", &kept);
        let encoder = [(READ_FP32, 1.5, full_length)];
        compare(
            "fp32 step",
            "one appended item, fp32, without the catalog",
            &encoder,
        );
        let n = items as usize;
        for (name, what, kept, run, gflops) in [
            ("int8", "int8 bundle", 0, n, floors.int8_gflops),
            ("fp32", "fp32 bundle", 0, n, floors.f32_gflops),
            (
                "int8 append",
                "one appended item, int8",
                n - 1,
                1,
                floors.int8_gflops,
            ),
            (
                "fp32 append",
                "one appended item, fp32",
                n - 1,
                1,
                floors.f32_gflops,
            ),
        ] {
            let floor = student.gflop(kept, run) / gflops * 1e3;
            let row = times.of(name).map(|own| {
                let row = Row::new(case(what), "CPU ms", own.median()).spread(own);
                row.against("its products at the machine's peak", floor)
            });
            rows.extend(row);
        }
        rows
    }
}

/// What was measured, by name.
struct Times<'a> {
    names: Vec<&'a str>,
    times: Vec<Samples>,
}

impl Times<'_> {
    fn of(&self, name: &str) -> Option<&Samples> {
        let at = self.names.iter().position(|known| *known == name)?;
        self.times.get(at)
    }

    /// `None` where one of the two was not measured.
    fn row(&self, case: &str, ours: &str, peer: &str) -> Option<Row> {
        let (own, theirs) = (self.of(ours)?, self.of(peer)?);
        let row = Row::new(case, "CPU ms", own.median()).spread(own);
        Some(row.against(peer, theirs.median()))
    }
}

/// A state that has run so many items.
fn caught_up(recommender: &mut Recommender, items: u32) -> Result<HistoryState, RuntimeError> {
    let (mut state, _) = recommender.history_state(&history(items))?;
    state.user_vector(recommender)?;
    Ok(state)
}

fn read(bytes: usize) -> Timed<'static, Failure> {
    let memory = Memory::of(bytes);
    timed(move || {
        black_box(memory.read());
        Ok(())
    })
}

fn same(what: &str, theirs: &[f32], ours: &[f32]) -> Result<(), Failure> {
    let length = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
    let mut differences = (theirs.iter().zip(ours)).map(|(a, b)| f64::from(a - b));
    let off = length(&mut differences) / length(&mut ours.iter().map(|v| f64::from(*v)));
    match theirs.len() == ours.len() && off <= TOLERANCE {
        true => Ok(()),
        false => Err(format!("{what} is another model: its user vector is off by {off}").into()),
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}
