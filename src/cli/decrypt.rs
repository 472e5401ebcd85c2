//! `docket decrypt`: opens what a pipeline encrypted, for who holds the key.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;

use super::CommandResult;
use crate::protect::keys::{self, Key};
use crate::words::counted;

/// Decrypt values that action: encrypt encrypted in docket records, without connecting to anything.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  docket decrypt --key k1=/run/secrets/k1 decisions.ndjson
  docket tail my.yaml --json | docket decrypt --key k1=k1.key --key k0=k0.key -
  openssl rand -base64 32 > /run/secrets/k1              create a key

A value can be decrypted only in the decision and at the place where it was encrypted. The output is no longer protected.")]
pub struct Args {
    /// ID of a key and the file that holds it: 32 bytes, in base64 or hex. May be repeated.
    #[arg(long = "key", required = true, value_name = "ID=FILE")]
    keys: Vec<String>,
    /// File of docket records, one per line; - is standard input.
    #[arg(value_name = "RECORDS")]
    records: PathBuf,
}

pub fn run(args: &Args) -> CommandResult {
    let mut keys = BTreeMap::new();
    for pair in &args.keys {
        let (id, path) =
            pair.split_once('=').ok_or_else(|| format!("--key {pair}: expected ID=FILE"))?;
        if let Some(told) = super::offline::absent(std::path::Path::new(path)) {
            return Err(super::Exit::wrong(format!("--key {id}: {told}")).into());
        }
        let text = zeroize::Zeroizing::new(
            std::fs::read_to_string(path).map_err(|e| format!("{path} can't be read: {e}"))?,
        );
        let key = Key::new(id, &text).map_err(|e| format!("--key {id}: {path}: {e}"))?;
        keys.insert(id.to_owned(), key);
    }
    let mut out = std::io::stdout().lock();
    let (mut opened, mut left) = (0_usize, 0_usize);
    for (number, line) in BufReader::new(super::input(&args.records)?).lines().enumerate() {
        let line = line?;
        if !keys::may_hold(&line) {
            writeln!(out, "{line}")?;
            continue;
        }
        crate::decision::json::check(line.as_bytes())
            .map_err(|e| format!("line {}: {e}", number + 1))?;
        let (record, n, not) = keys::open_all(&line, &keys);
        opened += n;
        left += not.len();
        for (place, why) in not {
            anstream::eprintln!("line {}: {}: {why}", number + 1, super::tail::printable(&place));
        }
        writeln!(out, "{record}")?;
    }
    anstream::eprintln!("{} opened, {left} not", counted(opened, "value"));
    if left > 0 {
        return Err(format!("{} can't be opened", counted(left, "value")).into());
    }
    Ok(())
}
