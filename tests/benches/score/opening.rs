//! What it takes to get to the first answer: CPU time of a process from its start, and its peak
//! memory. Each form of the graph is opened by a process of its own, the forms in turns.

use std::env;
use std::error::Error;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use ort::session::Session;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::Tensor;
use slmrec_core::Bundle;
use slmrec_runtime::{EngineChoice, FilterOptions};
use slmrec_tests::bench::clock::{cpu_ms, peak_kib};
use slmrec_tests::bench::{Row, Samples};

use super::student::{Student, history, open};

/// Makes this program a process that opens one thing; what it opens follows.
pub(super) const ARGUMENT: &str = "open-once";

type Failure = Box<dyn Error>;

const ROUNDS: usize = 9;
/// A Python that imports PyTorch takes seconds.
const TORCH_ROUNDS: usize = 3;
/// Runs after the first one.
const RUNS: usize = 15;
const WEIGHTS: &str = "weights.bin";
/// Largest share of the CPU time of opening the plain file, and most memory, in bundle sizes.
const CPU_GOAL: f64 = 0.6;
const MEMORY_GOAL: f64 = 3.0;

/// What a process answers.
#[derive(Clone, Copy)]
struct Opened {
    cpu_ms: f64,
    peak_mib: f64,
    /// Median of the later runs; NaN where there are none.
    run_ms: f64,
}

/// A form in which a graph can be opened.
struct Form {
    what: String,
    arguments: [String; 2],
}

pub(super) fn rows(student: &Student) -> Result<Vec<Row>, Failure> {
    let form = |what: &str, way: &str, file: &Path| Form {
        what: what.to_owned(),
        arguments: [way.to_owned(), file.display().to_string()],
    };
    let mut forms = vec![
        form(
            "plain fp32 .onnx, opened only",
            "file-only",
            &student.plain_onnx,
        ),
        form("int8 bundle, first answer", "bundle", &student.int8),
        form("fp32 bundle, first answer", "bundle", &student.fp32),
        form(
            "ONNX Runtime loaded, nothing opened",
            "nothing",
            &student.plain_onnx,
        ),
    ];
    for (name, bundle) in [("int8", &student.int8), ("fp32", &student.fp32)] {
        let graphs = Graphs::write(name, bundle)?;
        let graph = |what: &str, way: &str, file: &Path| {
            form(&format!("{name} graph {what}, first run"), way, file)
        };
        forms.extend([
            graph("as .onnx in memory", "memory", &graphs.onnx),
            graph("optimised, as .onnx", "optimised", &graphs.optimised),
            graph("as .ort", "ort", &graphs.ort),
            graph("with weights in memory", "weights", &graphs.external),
            graph(
                "with weights in memory, not prepacked",
                "weights-unpacked",
                &graphs.external,
            ),
        ]);
    }
    let mut found: Vec<Vec<Opened>> = vec![Vec::new(); forms.len()];
    for _ in 0..ROUNDS {
        for (form, found) in forms.iter().zip(&mut found) {
            let mut command = Command::new(env::current_exe()?);
            command.arg(ARGUMENT).args(&form.arguments);
            found.push(once(&form.what, &mut command)?);
        }
    }
    let torch: Vec<Opened> = (0..TORCH_ROUNDS)
        .map(|_| once("PyTorch", super::python("open")?.arg(&student.checkpoint)))
        .collect::<Result<_, _>>()?;
    report(student, &forms, &found, &torch)
}

fn report(
    student: &Student,
    forms: &[Form],
    found: &[Vec<Opened>],
    torch: &[Opened],
) -> Result<Vec<Row>, Failure> {
    let of = |found: &[Opened], figure: fn(&Opened) -> f64| {
        Samples::new(found.iter().map(figure).collect())
    };
    let mut rows = Vec::new();
    let peer = (&forms[0].what, of(&found[0], |o| o.cpu_ms).median());
    for (at, (form, found)) in forms.iter().zip(found).enumerate() {
        let case = format!("opening: {}", form.what);
        let cpu = of(found, |o| o.cpu_ms);
        let row = Row::new(&case, "CPU ms", cpu.median()).spread(&cpu);
        rows.push(match at {
            0 => row,
            1 => row.against(peer.0, peer.1).goal(CPU_GOAL),
            _ => row.against(peer.0, peer.1),
        });
        let peak = of(found, |o| o.peak_mib);
        let row = Row::new(&case, "peak MiB", peak.median()).spread(&peak);
        rows.push(match at {
            1 | 2 => {
                let file = [&student.int8, &student.fp32][at - 1];
                let mib = std::fs::metadata(file)?.len() as f64 / f64::from(1 << 20);
                row.against("the bundle's size", mib).goal(MEMORY_GOAL)
            }
            _ => row,
        });
        let run = of(found, |o| o.run_ms);
        if run.median().is_finite() {
            rows.push(Row::new(&case, "CPU ms a later run", run.median()).spread(&run));
        }
    }
    let (cpu, peak) = (of(torch, |o| o.cpu_ms), of(torch, |o| o.peak_mib));
    let case = format!("opening: {}", forms[1].what);
    let ours = |figure| of(&found[1], figure).median();
    rows.push(
        Row::new(&case, "CPU ms", ours(|o| o.cpu_ms))
            .against("PyTorch eager, import and first answer", cpu.median()),
    );
    rows.push(
        Row::new(&case, "peak MiB", ours(|o| o.peak_mib))
            .against("PyTorch eager, import and first answer", peak.median()),
    );
    Ok(rows)
}

/// Starts a process and takes its only line.
fn once(what: &str, command: &mut Command) -> Result<Opened, Failure> {
    let output = command
        .env("OMP_NUM_THREADS", "1")
        .stderr(Stdio::inherit())
        .output()?;
    let line = String::from_utf8(output.stdout)?;
    let figures: Vec<f64> = (line.split_whitespace().map(str::parse)).collect::<Result<_, _>>()?;
    match figures[..] {
        [_, cpu_ms, peak, run_ms] if output.status.success() => Ok(Opened {
            cpu_ms,
            peak_mib: peak / 1024.0,
            run_ms,
        }),
        _ => Err(format!("{what} answered {line:?}").into()),
    }
}

/// One graph in its forms.
struct Graphs {
    onnx: PathBuf,
    optimised: PathBuf,
    ort: PathBuf,
    /// Beside it stands [`WEIGHTS`].
    external: PathBuf,
}

impl Graphs {
    fn write(name: &str, bundle: &Path) -> Result<Self, Failure> {
        let folder = bundle.with_file_name(format!("{name}-graphs"));
        std::fs::create_dir_all(&folder)?;
        let graphs = Self {
            onnx: folder.join("graph.onnx"),
            optimised: folder.join("optimised.onnx"),
            ort: folder.join("graph.ort"),
            external: folder.join("external.onnx"),
        };
        let mut bundle = Bundle::open(bundle)?;
        let member = bundle.manifest().encoders[0].member.clone();
        std::fs::write(&graphs.onnx, bundle.member(&member)?)?;
        // Writing is done in processes of their own: this one has no session.
        let mut commands = [env::current_exe()?, env::current_exe()?].map(Command::new);
        let [optimise, convert] = &mut commands;
        optimise
            .args([ARGUMENT, "write-optimised"])
            .arg(&graphs.onnx);
        convert.args([ARGUMENT, "write-ort"]).arg(&graphs.onnx);
        let mut externalise = super::python("external")?;
        externalise
            .arg(&graphs.onnx)
            .args([&graphs.external, Path::new(WEIGHTS)]);
        for command in [optimise, convert, &mut externalise] {
            if !command.stdout(Stdio::null()).status()?.success() {
                return Err(format!("{command:?} failed").into());
            }
        }
        Ok(graphs)
    }
}

/// Opens one thing and says what it took.
pub(super) fn work(arguments: &[String]) -> Result<(), Failure> {
    let [way, file] = arguments else {
        return Err("expected how and what to open".into());
    };
    let file = Path::new(file);
    let mut answer: Box<dyn FnMut() -> Result<(), Failure>> = match way.as_str() {
        "bundle" => {
            let mut recommender = open(file, EngineChoice::OnnxRuntime)?;
            let history = history(50);
            Box::new(move || {
                black_box(recommender.recommend(&history, 10, &FilterOptions::default())?);
                Ok(())
            })
        }
        _ => {
            let library = env::var_os("ORT_DYLIB_PATH").ok_or("ORT_DYLIB_PATH is not set")?;
            let environment = ort::init_from(library)?.with_telemetry(false).build()?;
            let builder = Session::builder(&environment)?.with_intra_threads(1)?;
            match way.as_str() {
                "nothing" => Box::new(|| Ok(())),
                "file-only" => {
                    let _session = session(builder, way, file)?;
                    Box::new(|| Ok(()))
                }
                _ => {
                    let mut session = session(builder, way, file)?;
                    let input = Tensor::from_array(([1usize, 50, 128], vec![0.1f32; 50 * 128]))?;
                    Box::new(move || {
                        black_box(session.run(ort::inputs![&input])?);
                        Ok(())
                    })
                }
            }
        }
    };
    answer()?;
    let (first, peak) = (cpu_ms(), peak_kib()?);
    let mut runs = Vec::new();
    if !matches!(way.as_str(), "nothing" | "file-only") {
        for _ in 0..RUNS {
            let start = cpu_ms();
            answer()?;
            runs.push(cpu_ms() - start);
        }
    }
    println!("0 {first} {peak} {}", Samples::new(runs).median());
    Ok(())
}

fn session(builder: SessionBuilder, way: &str, file: &Path) -> Result<Session, Failure> {
    let none = GraphOptimizationLevel::Disable;
    let session = match way {
        "memory" => { builder }.commit_from_memory(&std::fs::read(file)?),
        "file-only" => { builder }.commit_from_file(file),
        "optimised" => builder
            .with_optimization_level(none)?
            .commit_from_file(file),
        "ort" => builder
            .with_config_entry("session.load_model_format", "ORT")?
            .commit_from_memory(&std::fs::read(file)?),
        "weights" | "weights-unpacked" => {
            let weights: Arc<[u8]> = std::fs::read(file.with_file_name(WEIGHTS))?.into();
            builder
                .with_external_initializer_file_in_memory(WEIGHTS, weights)?
                .with_prepacking(way == "weights")?
                .commit_from_memory(&std::fs::read(file)?)
        }
        "write-optimised" => builder
            .with_optimized_model_path(file.with_file_name("optimised.onnx"))?
            .commit_from_file(file),
        "write-ort" => builder
            .with_config_entry("session.save_model_format", "ORT")?
            .with_optimized_model_path(file.with_file_name("graph.ort"))?
            .commit_from_file(file),
        other => return Err(format!("no way named {other}").into()),
    };
    Ok(session?)
}
