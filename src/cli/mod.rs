//! The commands, one file each.

mod backfill;
mod bounds;
mod capacity;
mod check;
mod decrypt;
mod demo;
mod doctor;
mod feed;
mod generate;
mod init;
mod man;
mod offline;
mod protect;
mod recent;
mod redrive;
mod rejects;
mod reloading;
mod run;
mod schema;
mod setup;
mod shown;
mod sinks;
mod spikes;
mod stopping;
mod tail;
mod top;
mod verify;
mod why;

use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use serde_json::{Value, json};

use crate::pipeline::{self, LoadError, Pipeline};
use bounds::{bound, window};
use shown::{columns, progress, table};

/// Which docket this is.
const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("DOCKET_COMMIT"), ")");

/// The flight recorder for policy decisions.
///
/// docket reads OPA decision logs from Kafka, joins them with traces, and delivers each decision to the
/// tools that platform teams already watch: OpenTelemetry, Prometheus, Loki, Elasticsearch.
#[derive(Parser)]
#[command(
    name = "docket",
    version = VERSION,
    arg_required_else_help = true,
    after_help = "Examples:
  docket demo --for 30s                     see it work, without any server
  docket demo decisions.ndjson              the same, with your own decisions
  docket init my.yaml                       write a pipeline file to begin with
  docket check pipelines/opa.yaml           is it valid? its test cases, too
  docket setup pipelines/opa.yaml           create topics and index templates
  docket doctor pipelines/opa.yaml          what is wrong, and the way out
  docket run pipelines/opa.yaml             run the pipeline
  docket generate --to pipelines/opa.yaml   decisions for it, to try it out
  docket top pipelines/opa.yaml             what each part does, what fails
  docket tail pipelines/opa.yaml --verdict deny
  docket rejects pipelines/opa.yaml         what was refused, and why
  docket redrive pipelines/opa.yaml         send rejects again
  docket verify pipelines/opa.yaml          is every decision in every sink?
  docket spikes pipelines/opa.yaml          what the detector would have said
  docket capacity pipelines/opa.yaml        load, growth, cost, headroom
  docket protect my.yaml decisions.ndjson   what is removed, and by which rule
  docket why ID --from decisions.ndjson --bundle policies/   why was it denied?"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Args),
    Demo(demo::Args),
    Check(check::Args),
    Schema(schema::Args),
    Init(init::Args),
    Setup(setup::Args),
    Doctor(doctor::Args),
    Generate(generate::Args),
    Tail(tail::Args),
    Top(top::Args),
    Rejects(rejects::Args),
    Redrive(redrive::Args),
    Backfill(backfill::Args),
    /// Renamed to `docket redrive` and `docket backfill`.
    #[command(hide = true)]
    Replay {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    Verify(verify::Args),
    Spikes(spikes::Args),
    Capacity(capacity::Args),
    Protect(protect::Args),
    Why(why::Args),
    Decrypt(decrypt::Args),
    /// Write a manual page for each command into a folder, e.g. `docket man /usr/local/share/man/man1`.
    Man {
        /// Folder to write to.
        folder: std::path::PathBuf,
    },
    /// Print shell completions, e.g. `docket completions bash > /etc/bash_completion.d/docket`.
    Completions {
        /// Shell to complete for.
        shell: clap_complete::Shell,
    },
}

/// An error for people; the process ends with it.
type CommandResult<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// An error with an exit code of its own.
#[derive(Debug, thiserror::Error)]
#[error("{told}")]
struct Exit {
    code: u8,
    told: String,
    /// What --json prints says it already.
    reported: bool,
    /// Of a pipeline file that is not valid.
    problems: Vec<Value>,
}

impl Exit {
    fn new(code: u8, told: impl Into<String>) -> Exit {
        Exit { code, told: told.into(), reported: false, problems: Vec::new() }
    }

    /// Arguments that can't be meant: what they name is not there, or is something else.
    fn wrong(told: impl Into<String>) -> Exit {
        Exit::new(2, told)
    }

    /// The last word on what was printed.
    fn reported(code: u8, told: impl Into<String>) -> Exit {
        Exit { reported: true, ..Exit::new(code, told) }
    }

    /// A pipeline file that is not valid.
    fn invalid(code: u8, error: &LoadError) -> Exit {
        Exit { problems: problems(error), ..Exit::new(code, error.to_string()) }
    }
}

impl From<String> for Exit {
    fn from(told: String) -> Exit {
        Exit::new(1, told)
    }
}

/// What is wrong with a pipeline file, for programs.
fn problems(error: &LoadError) -> Vec<Value> {
    let each = error.places().map(
        |(line, column, message)| json!({ "line": line, "column": column, "message": message }),
    );
    each.collect()
}

pub fn main() -> ExitCode {
    printing_may_fail();
    // One TLS implementation for everything that speaks HTTP or gRPC.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let args = arguments(std::env::args_os());
    let matches = commands().try_get_matches_from(&args);
    let matches = matches.unwrap_or_else(|mut e| {
        near(&mut e);
        refused(&e, &args)
    });
    let json = wants_json(&matches);
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    let result = match cli.command {
        Command::Run(args) => runtime(run::run(args)),
        Command::Demo(args) => runtime(demo::run(args)),
        Command::Check(args) => check::run(&args),
        Command::Schema(args) => schema::run(&args),
        Command::Init(args) => init::run(&args),
        Command::Top(args) => runtime(top::run(args)),
        Command::Setup(args) => runtime(setup::run(args)),
        Command::Doctor(args) => runtime(doctor::run(args)),
        Command::Generate(args) => generate::run(&args),
        Command::Tail(args) => tail::run(&args),
        Command::Rejects(args) => rejects::run(&args),
        Command::Redrive(args) => runtime(redrive::run(args)),
        Command::Backfill(args) => runtime(backfill::run(args)),
        Command::Replay { rest } => Err(if rest.iter().any(|arg| arg == "--past") {
            "docket replay --past is now docket backfill, with the same options".into()
        } else {
            "docket replay is now docket redrive (rejects, with the same options) and docket backfill (a sink's past)".into()
        }),
        Command::Verify(args) => runtime(verify::run(args)),
        Command::Spikes(args) => spikes::run(&args),
        Command::Protect(args) => protect::run(&args),
        Command::Why(args) => match why::run(&args) {
            Ok(code) => return code,
            Err(e) => Err(e),
        },
        Command::Decrypt(args) => decrypt::run(&args),
        Command::Capacity(args) => runtime(capacity::run(args)),
        Command::Man { folder } => man::write(&folder),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut commands(), "docket", &mut script);
            anstream::print!("{}", String::from_utf8_lossy(&script));
            Ok(())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Reading only the head of the output is no error.
            if error
                .downcast_ref::<std::io::Error>()
                .is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
            {
                return ExitCode::SUCCESS;
            }
            let full = error
                .downcast_ref::<std::io::Error>()
                .is_some_and(|e| e.kind() == std::io::ErrorKind::StorageFull);
            // What else is written has a name, and says so.
            let of = if full { "standard output can't be written: " } else { "" };
            let exit = error.downcast_ref::<Exit>();
            let told = format!("{of}{error}");
            // What quotes a pipeline file has marks below what it quotes.
            let quotes = error.is::<LoadError>() || exit.is_some_and(|e| !e.problems.is_empty());
            let columns = if quotes { usize::MAX } else { shown::error_columns() };
            anstream::eprint!("{}", shown::lines(&told, columns));
            if json && exit.is_none_or(|exit| !exit.reported) {
                let problems = match error.downcast_ref::<LoadError>() {
                    Some(error) => problems(error),
                    None => exit.map_or_else(Vec::new, |exit| exit.problems.clone()),
                };
                let said = json!({ "error": error.to_string(), "problems": problems });
                // Nobody reads on: standard error has it.
                let _ = writeln!(std::io::stdout(), "{said}");
            }
            exit.map_or(ExitCode::FAILURE, |exit| exit.code.into())
        }
    }
}

/// What prints panics if it can't, as where the reader has gone or the disk is full. That is no fault of docket's: it ends, and says so.
fn printing_may_fail() {
    let others = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if crate::caught::is_quiet() {
            return;
        }
        let told = panic.payload().downcast_ref::<String>();
        let Some(why) = told.and_then(|told| told.strip_prefix("failed printing to stdout: "))
        else {
            return others(panic);
        };
        // Reading only the head of the output is no error.
        if why.contains("Broken pipe") {
            std::process::exit(0);
        }
        let _ = writeln!(std::io::stderr(), "standard output can't be written: {why}");
        std::process::exit(1);
    }));
}

/// All commands. One that needs arguments and has none shows its help, with examples, instead of what clap misses first.
fn commands() -> clap::Command {
    const NEED_ONE_OF_SEVERAL: [&str; 3] = ["spikes", "top", "capacity"];
    Cli::command().mut_subcommands(|command| {
        let needs = command.get_arguments().any(clap::Arg::is_required_set)
            || NEED_ONE_OF_SEVERAL.contains(&command.get_name());
        command.arg_required_else_help(needs)
    })
}

/// `docket help --help` is what `docket help` is.
fn arguments(args: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut args: Vec<OsString> = args.collect();
    if args.get(1).is_some_and(|first| first == "help") {
        args.retain(|arg| arg != "--help" && arg != "-h");
    }
    args
}

/// Ends with what is wrong with the arguments.
fn refused(error: &clap::Error, args: &[OsString]) -> ! {
    use clap::error::ErrorKind::{DisplayHelp, DisplayVersion};
    if matches!(error.kind(), DisplayHelp | DisplayVersion) {
        // clap passes over what can't be written.
        anstream::print!("{}", error.render().ansi());
        std::process::exit(0);
    }
    let Some(told) = meant(error, args) else { error.exit() };
    anstream::eprintln!("error: {told}");
    std::process::exit(2)
}

/// Of values, the one that begins as what was written is what was meant: `denied` is deny, and no kind of undefined.
fn near(error: &mut clap::Error) {
    use clap::error::{ContextKind, ContextValue};
    let Some(ContextValue::String(written)) = error.get(ContextKind::InvalidValue) else { return };
    let Some(ContextValue::Strings(values)) = error.get(ContextKind::ValidValue) else { return };
    let begins = |value: &&String| value.get(..3).is_some_and(|three| written.starts_with(three));
    if let Some(value) = values.iter().find(begins).cloned() {
        error.insert(ContextKind::SuggestedValue, ContextValue::String(value));
    }
}

/// What is wrong, and what was meant, where clap guesses at something else.
fn meant(error: &clap::Error, args: &[OsString]) -> Option<String> {
    use clap::error::{ContextKind, ContextValue, ErrorKind};
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let Some(ContextValue::String(arg)) = error.get(ContextKind::InvalidArg) else { return None };
    let shown = |arg: &OsString| arg.to_string_lossy().into_owned();
    if arg.strip_prefix('-').is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit())) {
        let at = args.iter().position(|given| shown(given).starts_with(arg.as_str()))?;
        let option = shown(args.get(at.checked_sub(1)?)?);
        let value = shown(&args[at]);
        return option.starts_with('-').then(|| format!("{option} {value}: it can't be negative"));
    }
    let meant = crate::words::shell(arg);
    match (args.get(1)?.to_str()?, arg.starts_with('-')) {
        ("generate", false) => Some(format!(
            "docket generate writes to standard output, or to the source topic of a pipeline:\n  docket generate > decisions.ndjson\n  docket generate --to {meant}"
        )),
        ("schema", false) => Some(format!(
            "docket schema describes all pipeline files; one of them is checked by:\n  docket check {meant}"
        )),
        _ => None,
    }
}

/// Whether a program reads what is printed.
fn wants_json(matches: &clap::ArgMatches) -> bool {
    let given = |of: &clap::ArgMatches| of.try_get_one::<bool>("json").ok().flatten().copied();
    matches.subcommand().and_then(|(_, of)| given(of)).unwrap_or(false)
}

fn runtime(command: impl Future<Output = CommandResult>) -> CommandResult {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(command);
    // Nobody waits for a name that is still looked up.
    runtime.shutdown_background();
    result
}

fn load(path: &std::path::Path) -> Result<Pipeline, Box<dyn std::error::Error>> {
    if let Some(told) = no_pipeline(path) {
        return Err(Exit::wrong(told).into());
    }
    Ok(pipeline::load(path)?)
}

/// What is said of what can be no pipeline file, by what it is.
fn no_pipeline(path: &std::path::Path) -> Option<String> {
    let decisions = || offline::is_decisions(path).then(|| offline::no_pipeline(path));
    let other = offline::empty(path).or_else(decisions).or_else(|| offline::zipped(path));
    let folder = || path.is_dir().then(|| format!("{} is a directory", path.display()));
    other.or_else(folder).or_else(|| offline::absent(path))
}

/// A file, or standard input for -.
fn input(path: &std::path::Path) -> Result<Box<dyn std::io::Read>, Exit> {
    if path.as_os_str() == "-" {
        return Ok(Box::new(std::io::stdin().lock()));
    }
    there(path)?;
    let wrong = |e| format!("{} can't be read: {e}", path.display());
    Ok(Box::new(std::fs::File::open(path).map_err(wrong)?))
}

/// Whether there may be decisions in it, without reading it.
fn there(path: &std::path::Path) -> Result<(), Exit> {
    if path.is_dir() {
        let path = path.display();
        return Err(Exit::wrong(format!(
            "{path} is a directory; name the files in it, such as {path}/*.ndjson"
        )));
    }
    offline::absent(path).map_or(Ok(()), |told| Err(Exit::wrong(told)))
}

/// A duration as the pipeline file has them.
fn duration(text: &str) -> Result<std::time::Duration, String> {
    text.parse::<crate::config::units::Span>().map(|span| span.0)
}

/// How many a second.
fn a_second(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate > 0.0);
    rate.ok_or_else(|| "it must be a number above 0, such as 200".into())
}

/// A part of a whole.
fn fraction(text: &str) -> Result<f64, String> {
    let part = text.parse().ok().filter(|part| (0.0..=1.0).contains(part));
    part.ok_or_else(|| "it must be from 0 to 1".into())
}

/// The URL of a server; whoever leaves the scheme out means http.
fn url(text: &str) -> Result<String, String> {
    let text = text.trim();
    let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let wrong = |why: &str| format!("{why}; write it like http://localhost:9464");
    let url = reqwest::Url::parse(&whole).map_err(|e| wrong(&e.to_string()))?;
    let port = url.port().map_or(Ok(()), pipeline::addresses::port);
    match url.scheme() {
        "http" | "https" => {
            port.map_err(|why| wrong(&why)).map(|()| whole.trim_end_matches('/').to_owned())
        }
        other => Err(wrong(&format!("{other} is not http or https"))),
    }
}

/// Moves a bar.
fn step(bar: &indicatif::ProgressBar) -> std::sync::Arc<dyn Fn(u64) + Send + Sync> {
    let bar = bar.clone();
    std::sync::Arc::new(move |n| bar.inc(n))
}

/// Who waits is told so; nobody any more, once it is dropped.
struct Waiting(#[allow(dead_code)] std::sync::mpsc::Sender<()>);

/// Says what is waited for, if that takes long, until it is dropped.
fn waiting(what: &str) -> Waiting {
    slow(format!("waiting for {what} .."))
}

/// Says this, if what it is about takes long, until it is dropped.
fn slow(sentence: String) -> Waiting {
    let (done, wait) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let timeout = std::sync::mpsc::RecvTimeoutError::Timeout;
        if wait.recv_timeout(std::time::Duration::from_millis(1500)) == Err(timeout) {
            anstream::eprintln!("{sentence}");
        }
    });
    Waiting(done)
}

/// Ends the process once nobody reads its output any more, as behind `head`: who waits for what comes would not notice until it does.
fn end_with_the_reader() {
    use std::os::fd::AsFd;
    let watch = || -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        runtime.block_on(async {
            let gone = tokio::io::Interest::ERROR;
            let out = std::io::stdout().as_fd().try_clone_to_owned()?;
            let out = tokio::net::unix::pipe::Sender::from_owned_fd_unchecked(out)?;
            if out.ready(gone).await.is_ok() {
                std::process::exit(0);
            }
            Ok(())
        })
    };
    // A file has no reader, and can't be watched. A terminal that goes says so by a signal.
    let _ = std::thread::Builder::new().name("docket-reader".into()).spawn(watch);
}

/// SIGTERM, SIGINT.
async fn asked_to_stop() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate())?;
    let mut int = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = term.recv() => {}
        _ = int.recv() => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_scheme_is_http() {
        for (text, taken) in [
            ("localhost:9464", "http://localhost:9464"),
            ("10.0.0.1", "http://10.0.0.1"),
            ("https://docket/x/", "https://docket/x"),
            ("[::1]:9464", "http://[::1]:9464"),
        ] {
            assert_eq!(url(text).as_deref(), Ok(taken));
        }
        for bad in ["", "localhost:99999", "http://", "http://h:0", "ftp://h", "a b"] {
            assert!(url(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn wrong_arguments_are_told_with_what_was_meant() {
        let told = |args: &[&str]| {
            let args: Vec<OsString> = ["docket"].iter().chain(args).map(OsString::from).collect();
            let error = commands().try_get_matches_from(&args).map(|_| ()).unwrap_err();
            meant(&error, &args).unwrap_or_else(|| error.to_string())
        };
        for args in [
            &["demo", "--for", "-1s"][..],
            &["demo", "--rate", "-5"],
            &["tail", "my.yaml", "--from", "-10m"],
            &["spikes", "my.yaml", "--since", "-1d"],
        ] {
            let (option, value) = (args[args.len() - 2], args[args.len() - 1]);
            assert_eq!(told(args), format!("{option} {value}: it can't be negative"));
        }
        let parsed =
            commands().try_get_matches_from(["docket", "tail", "x", "--verdict", "denied"]);
        let mut error = parsed.unwrap_err();
        near(&mut error);
        assert!(error.to_string().contains("similar value exists: 'deny'"), "{error}");
        assert!(told(&["generate", "my.yaml"]).contains("docket generate --to my.yaml"));
        assert!(told(&["schema", "my.yaml"]).contains("docket check my.yaml"));
        for args in [["demo", "--rate", "0"], ["generate", "--rate", "inf"]] {
            assert!(told(&args).contains("a number above 0"), "{}", told(&args));
        }
        assert!(told(&["generate", "--deny", "2"]).contains("from 0 to 1"));
        assert!(told(&["capacity", "x", "--cores", "0"]).contains("a number above 0"));
        for since in ["1w", "1 fortnight", "1"] {
            let said = told(&["spikes", "my.yaml", "--since", since]);
            assert!(said.contains("ms, s, m, h or d"), "{said}");
        }
        assert!(told(&["tail", "a.yaml", "b.yaml"]).contains("unexpected argument 'b.yaml'"));
    }

    #[test]
    fn a_directory_is_no_file_and_its_files_are_named() {
        let wrong = input(std::path::Path::new("examples")).map(|_| ()).unwrap_err();
        assert!(wrong.told.ends_with("such as examples/*.ndjson"), "{wrong}");
    }

    #[test]
    fn a_command_that_needs_arguments_shows_its_forms_without_them() {
        for command in commands().get_subcommands().filter(|c| !c.is_hide_set()) {
            let name = command.get_name();
            let alone = commands().try_get_matches_from(["docket", name]);
            if let Err(e) = alone {
                let kind = clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
                assert_eq!(e.kind(), kind, "{name}: {e}");
            }
        }
        for asked in [&["docket", "help", "--help"][..], &["docket", "help", "why", "-h"]] {
            let args = arguments(asked.iter().map(OsString::from));
            let said = commands().try_get_matches_from(args).unwrap_err();
            assert_eq!(said.kind(), clap::error::ErrorKind::DisplayHelp, "{asked:?}");
        }
        let why = commands().try_get_matches_from(["docket", "why"]).unwrap_err().to_string();
        assert!(why.contains("docket why TRACE_ID --from decisions.ndjson"), "{why}");
    }

    #[test]
    fn examples_fit_a_terminal_and_whatever_a_person_reads_a_program_can_read() {
        let cli = Cli::command();
        let all = std::iter::once(&cli).chain(cli.get_subcommands());
        let (mut examples, mut wide) = (0, Vec::new());
        for command in all {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines().filter(|line| line.starts_with("  ")) {
                examples += 1;
                wide.extend((line.chars().count() > 80).then(|| line.to_owned()));
            }
        }
        assert!(examples > 40 && wide.is_empty(), "{examples}, {wide:#?}");
        // What prints JSON as it is, draws, runs on, or writes a file, has nothing to say in JSON.
        let without = [
            "run",
            "demo",
            "schema",
            "init",
            "setup",
            "generate",
            "completions",
            "man",
            "capacity",
            "decrypt",
        ];
        for command in
            cli.get_subcommands().filter(|c| !c.is_hide_set() && !without.contains(&c.get_name()))
        {
            let json = |arg: &clap::Arg| {
                arg.get_long() == Some("json") || arg.get_long() == Some("format")
            };
            assert!(command.get_arguments().any(json), "{}", command.get_name());
        }
    }
}
