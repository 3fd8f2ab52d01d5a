//! The binary: see `hubbub --help`.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match hubbub::cli::Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("hubbub: {error:#}");
            ExitCode::FAILURE
        }
    }
}
