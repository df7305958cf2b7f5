//! Entry point of `slmrec-distill`.

use std::process::ExitCode;

/// Training allocates and frees large blocks all the time; mimalloc keeps their pages.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    slmrec_distill::cli::main()
}
