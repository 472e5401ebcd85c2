//! `docket schema`: the JSON Schema of the pipeline file, for editors.

use super::CommandResult;
use crate::pipeline::check;

pub fn run() -> CommandResult {
    anstream::println!("{}", serde_json::to_string_pretty(&check::schema())?);
    Ok(())
}
