//! Says which commit this is, for `docket --version`: DOCKET_COMMIT, or that of the working copy. Only in a release: others would be built
//! anew after each commit.

#![allow(clippy::disallowed_methods)]

use std::process::Command;

fn git(args: &[&str]) -> Option<String> {
    let out = Command::new("git").args(args).output().ok().filter(|out| out.status.success())?;
    Some(String::from_utf8(out.stdout).ok()?.trim().to_owned())
}

fn main() {
    println!("cargo:rerun-if-env-changed=DOCKET_COMMIT");
    println!("cargo:rerun-if-changed=build.rs");
    let released = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let given = std::env::var("DOCKET_COMMIT").ok().filter(|commit| !commit.is_empty());
    let commit = given.or_else(|| {
        if !released {
            return None;
        }
        for name in ["HEAD", "logs/HEAD"] {
            let path = git(&["rev-parse", "--git-path", name])?;
            println!("cargo:rerun-if-changed={path}");
        }
        git(&["rev-parse", "--short=12", "HEAD"])
    });
    let commit = commit.unwrap_or_else(|| "development build".into());
    println!("cargo:rustc-env=DOCKET_COMMIT={commit}");
}
