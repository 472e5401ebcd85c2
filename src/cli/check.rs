//! `docket check`: validates pipeline files and runs their own tests.

use std::path::PathBuf;

use super::CommandResult;
use crate::config::units::counted;
use crate::pipeline::{self, cases};

/// Validate pipeline files and run their test cases, without connecting to anything.
#[derive(clap::Args)]
#[command(after_help = "Example:
  docket check pipelines/*.yaml")]
pub struct Args {
    /// Pipeline files.
    #[arg(required = true, value_name = "PIPELINE")]
    files: Vec<PathBuf>,
}

pub fn run(args: &Args) -> CommandResult {
    let (mut bad_files, mut failed) = (0, 0);
    for path in &args.files {
        let pipeline = match pipeline::load(path) {
            Ok(pipeline) => pipeline,
            Err(error) => {
                anstream::eprintln!("{error}");
                bad_files += 1;
                continue;
            }
        };
        let mut passed = 0;
        for case in &pipeline.file.tests {
            match cases::run(&pipeline, case) {
                Ok(()) => passed += 1,
                Err(diff) => {
                    anstream::eprintln!("{}: test {:?} failed\n{diff}", path.display(), case.name);
                    failed += 1;
                }
            }
        }
        let total = pipeline.file.tests.len();
        anstream::println!("{}: valid, {passed} of {total} tests passed", path.display());
    }
    if bad_files + failed > 0 {
        let verb = if bad_files == 1 { "is" } else { "are" };
        return Err(format!(
            "{} {verb} not valid, {} failed",
            counted(bad_files, "file"),
            counted(failed, "test")
        )
        .into());
    }
    Ok(())
}
