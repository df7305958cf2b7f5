//! Entry point of `slmrec-distill`.

use std::process::ExitCode;

fn main() -> ExitCode {
    slmrec_distill::cli::main()
}
