//! The `chaski` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    chaski::cli::main(std::env::args_os().skip(1))
}
