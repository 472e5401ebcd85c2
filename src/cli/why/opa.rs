//! A real `opa`, which is asked rather than regorus where there is one. It listens on a socket in a folder of its own that nobody else may
//! enter, asks nobody (what `http.send` answered is recorded or unknown), and ends with the command.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cli::shown::note;
use crate::explain::{Bundle, Explanation, Opa, Policies, Recorded, explain, explain_by_opa};

/// So long it may take to start, with large data, or to answer.
const START: Duration = Duration::from_secs(20);
const ANSWER: Duration = Duration::from_secs(20);
/// `opa` ends when the pipe to this shell does, however docket ends.
const UNTIL_THE_END: &str =
    r#"exec 3<&0; "$@" </dev/null & p=$!; (read -r _ <&3; kill $p) 2>/dev/null & wait $p"#;

/// Policies, and who evaluates decisions with them.
pub(super) struct Explainer {
    pub bundle: Bundle,
    /// `opa`, or where it is; `None` where it is not to be asked.
    program: Option<PathBuf>,
    asked: bool,
    /// What is the same for all decisions; nothing where none of the policies can be read.
    policies: OnceCell<Option<Policies>>,
    /// Of the policies that are needed, as nothing if it can't be asked.
    started: RefCell<Option<Asked>>,
}

/// Which policies are needed, and who was given them.
type Asked = (BTreeSet<usize>, Option<Rc<Started>>);

impl Explainer {
    /// `named` is what the command line says: a program, or `none`; without it it is `opa` if that is on the PATH.
    pub fn new(bundle: Bundle, named: Option<&Path>) -> Explainer {
        let program = match named {
            Some(named) if named == Path::new("none") => None,
            Some(named) => Some(named.to_owned()),
            None => Some("opa".into()),
        };
        let (policies, started) = (OnceCell::new(), RefCell::new(None));
        Explainer { bundle, program, asked: named.is_some(), policies, started }
    }

    /// OPA is what decided: regorus evaluates only where there is none.
    pub fn explain(&self, recorded: &Recorded<'_>) -> Result<Explanation, String> {
        let Some((policies, opa)) = self.opa(recorded.path) else {
            return explain(&self.bundle, recorded);
        };
        explain_by_opa((&self.bundle, policies), recorded, &*opa).or_else(|e| {
            note(&format!("{} was asked, and failed: {e}", opa.name));
            explain(&self.bundle, recorded)
        })
    }

    /// An OPA that has what the evaluation of a decision may come to.
    fn opa(&self, path: &str) -> Option<(&Policies, Rc<Started>)> {
        let program = self.program.as_deref()?;
        let found = found(program);
        if found.is_none() && !self.asked {
            return None;
        }
        let read = || Policies::of(&self.bundle).inspect_err(|e| untold(e)).ok();
        let policies = self.policies.get_or_init(read).as_ref()?;
        let needed = policies.needed(path);
        let mut started = self.started.borrow_mut();
        let serves = |(has, opa): &(BTreeSet<usize>, Option<Rc<Started>>)| {
            *has == needed || opa.is_some() && has.is_superset(&needed)
        };
        if !started.as_ref().is_some_and(serves) {
            // One at a time.
            started.take();
            let absent = || format!("{}: no such program", program.display());
            let opa = found.ok_or_else(absent).and_then(|opa| {
                Started::new(&opa, &self.bundle, &needed, policies.are_v0()).map(Rc::new)
            });
            *started = Some((needed, opa.inspect_err(|e| untold(e)).ok()));
        }
        let opa = started.as_ref().and_then(|(_, opa)| opa.clone())?;
        Some((policies, opa))
    }
}

fn untold(why: &str) {
    note(&format!("OPA could not be asked: {why}"));
}

/// Where a program is, by its path or on the PATH.
fn found(program: &Path) -> Option<PathBuf> {
    // It is started in another folder.
    let whole = |file: PathBuf| std::path::absolute(file).ok();
    if program.components().count() > 1 {
        return program.is_file().then(|| program.to_owned()).and_then(whole);
    }
    let path = std::env::var_os("PATH")?;
    let all = std::env::split_paths(&path).map(|folder| folder.join(program));
    all.into_iter().find(|file| file.is_file()).and_then(whole)
}

/// What is said of a program that is named and is not there.
pub(super) fn absent(named: &Path) -> Option<String> {
    let there = named == Path::new("none") || found(named).is_some();
    (!there)
        .then(|| format!("--opa {}: no such program (none: regorus evaluates)", named.display()))
}

struct Started {
    process: Child,
    folder: tempfile::TempDir,
    name: String,
}

impl Started {
    /// With these of the policies.
    fn new(
        opa: &Path,
        bundle: &Bundle,
        needed: &BTreeSet<usize>,
        v0: bool,
    ) -> Result<Started, String> {
        // As it is by default in this version of OPA, or else by this flag.
        let flags = match v0 {
            true => [Some("--v0-compatible"), None],
            false => [None, Some("--v1-compatible")],
        };
        let [first, second] = flags;
        let mut started = Started::with(opa, (bundle, needed), first)
            .or_else(|e| Started::with(opa, (bundle, needed), second).map_err(|_| e))
            .map_err(|e| format!("{}: {e}", opa.display()))?;
        started.put("docket_query", "package docket_query\nsaid := opa.runtime().version\n")?;
        let version = started.data("docket_query/said", None)?;
        let version = version.and_then(|version| version.as_str().map(str::to_owned));
        started.name = version.map_or_else(|| "OPA".into(), |version| format!("OPA {version}"));
        Ok(started)
    }

    fn with(
        opa: &Path,
        (bundle, needed): (&Bundle, &BTreeSet<usize>),
        flag: Option<&str>,
    ) -> Result<Started, String> {
        let io = |e: std::io::Error| e.to_string();
        let folder = tempfile::Builder::new().prefix("docket-opa-").tempdir().map_err(io)?;
        let within = folder.path().join("bundle");
        fs::create_dir(&within).map_err(io)?;
        let policies = bundle.policies.iter().enumerate();
        for (at, policy) in policies.filter(|(at, _)| needed.contains(at)) {
            fs::write(within.join(format!("{at}.rego")), &policy.text).map_err(io)?;
        }
        fs::write(within.join("data.json"), bundle.data.to_string()).map_err(io)?;
        let log = folder.path().join("log");
        let mut command = Command::new("sh");
        command.args(["-c", UNTIL_THE_END, "sh"]).arg(opa).args(["run", "--server"]);
        command.args(["--skip-version-check", "--log-level", "error", "--addr"]);
        command.arg(format!("unix://{}", folder.path().join("socket").display()));
        command.args(flag).arg("bundle").current_dir(folder.path());
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let process = command.stderr(fs::File::create(&log).map_err(io)?).spawn().map_err(io)?;
        let mut started = Started { process, folder, name: "OPA".into() };
        let begin = Instant::now();
        loop {
            if started.send("GET", "/health", None).is_ok() {
                return Ok(started);
            }
            let ended = started.process.try_wait().map_err(io)?;
            if ended.is_some() || begin.elapsed() > START {
                let said = fs::read_to_string(&log).unwrap_or_default();
                let said = said.lines().rev().find(|line| !line.trim().is_empty());
                return Err(said.unwrap_or("it does not start").trim().to_owned());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// In HTTP/1.0 an answer is what comes until the end.
    fn send(&self, method: &str, path: &str, body: Option<&str>) -> Result<Value, String> {
        let io = |e: std::io::Error| e.to_string();
        let mut stream = UnixStream::connect(self.folder.path().join("socket")).map_err(io)?;
        stream.set_read_timeout(Some(ANSWER)).map_err(io)?;
        stream.set_write_timeout(Some(ANSWER)).map_err(io)?;
        let (body, mut answer) = (body.unwrap_or_default(), Vec::new());
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: opa\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).map_err(io)?;
        stream.write_all(body.as_bytes()).map_err(io)?;
        stream.read_to_end(&mut answer).map_err(io)?;
        let answer = String::from_utf8_lossy(&answer);
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer in HTTP")?;
        let status = head.split(' ').nth(1).unwrap_or_default();
        let json = serde_json::from_str(body).unwrap_or(Value::Null);
        if status == "200" { Ok(json) } else { Err(message(&json, status)) }
    }
}

/// What OPA says of a request that it refuses: the first of its errors, if it has several.
fn message(answer: &Value, status: &str) -> String {
    let first = &answer["errors"][0];
    let text = first["message"].as_str().or(answer["message"].as_str());
    let code = first["code"].as_str().map(|code| format!("{code}: ")).unwrap_or_default();
    text.map_or_else(|| format!("HTTP status {status}"), |text| format!("{code}{text}"))
}

impl Opa for Started {
    fn put(&self, name: &str, policy: &str) -> Result<(), String> {
        self.send("PUT", &format!("/v1/policies/{name}"), Some(policy)).map(|_| ())
    }

    fn data(&self, path: &str, input: Option<&str>) -> Result<Option<Value>, String> {
        let request = input.map_or_else(|| "{}".into(), |input| format!("{{\"input\":{input}}}"));
        let answer = self.send("POST", &format!("/v1/data/{path}"), Some(&request))?;
        Ok(answer.get("result").cloned())
    }

    fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// For each question OPA compiles all that it has again: with fifty policies that takes a quarter of a second.
    #[test]
    fn opa_gets_only_the_policies_that_a_decision_may_come_to() {
        let place = tempfile::tempdir().unwrap();
        let (opa, listed) = (place.path().join("opa"), place.path().join("listed"));
        let script = format!("#!/bin/sh\nls bundle >> '{}'; exit 1\n", listed.display());
        fs::write(&opa, script).unwrap();
        fs::set_permissions(&opa, fs::Permissions::from_mode(0o755)).unwrap();
        let files = [
            ("a.rego", "package a\nimport rego.v1\nallow if data.lib.ok"),
            ("b.rego", "package b\nimport rego.v1\nallow if input.n == 1"),
            ("lib.rego", "package lib\nimport rego.v1\nok if input.n == 1"),
        ];
        let files = files.map(|(name, text)| (name.to_owned(), text.as_bytes().to_vec()));
        let explainer = Explainer::new(Bundle::of(files.to_vec()).unwrap(), Some(&opa));
        for (path, wanted) in [("a/allow", "0.rego\n2.rego\n"), ("b/allow", "1.rego\n")] {
            let recorded = Recorded {
                path,
                input: Some(r#"{"n":1}"#),
                result: Some("true"),
                ..Recorded::default()
            };
            for _ in 0..2 {
                let said = explainer.explain(&recorded).unwrap();
                assert!(said.reproduced && said.evaluated_by == "regorus", "{said:?}");
            }
            // In both versions of Rego, and not again for the next decision.
            let listed = fs::read_to_string(&listed).unwrap();
            let once = format!("{wanted}data.json\n");
            assert!(listed.ends_with(&once.repeat(2)), "{path}: {listed}");
            assert_eq!(listed.matches(wanted).count(), 2, "{path}: {listed}");
        }
    }
}
