//! `docket why` asks a real `opa` where regorus can't evaluate what that can.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::{Value, json};

use super::address;
use super::support::docket;

const POLICY: &str = r#"package authz

import rego.v1

default allow := false

allow if {
	[valid, _, claims] := io.jwt.decode_verify(input.token, {"secret": "secret"})
	valid
	some i, j
	input.list[i] == 1
	claims.roles[j] == "admin"
}

allow if {
	answer := http.send({"url": "URL", "method": "get"})
	answer.status_code == 200
}

reasons contains "network" if not net.cidr_merge(input.nets) == {"10.0.0.0/8"}

reasons contains "short" if count(strings.split_n(input.path, "/", 2)) < 2
"#;

const OLD: &str = r#"package old

default allow = false

allow { re_match("^a", input.name); input.age > 17 }
"#;

fn token(claims: &Value) -> String {
    let part = |value: &str| URL_SAFE_NO_PAD.encode(value);
    let said = format!("{}.{}", part(r#"{"alg":"HS256"}"#), part(&claims.to_string()));
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
    format!("{said}.{}", URL_SAFE_NO_PAD.encode(hmac::sign(&key, said.as_bytes())))
}

struct Asked<'p> {
    folder: &'p Path,
    policy: String,
}

impl Asked<'_> {
    /// What is said of a decision, with what `opa` is on the PATH.
    fn why(&self, decision: &Value, opa: bool) -> Output {
        let (bundle, path) = (self.folder.join("bundle"), self.folder.join("path"));
        let (file, temporary) = (self.folder.join("d.ndjson"), self.folder.join("tmp"));
        for folder in [&bundle, &path, &temporary] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(bundle.join("p.rego"), &self.policy).unwrap();
        fs::write(&file, decision.to_string()).unwrap();
        let link = path.join("opa");
        if !link.exists() {
            std::os::unix::fs::symlink(address("OPA_BIN"), link).unwrap();
        }
        let path = if opa { format!("{}:", path.display()) } else { String::new() };
        let mut command = docket();
        command.args(["why", "decision-1", "--from"]).arg(&file).arg("--bundle").arg(&bundle);
        // Its own folders, to see that nothing is left there.
        command.arg("--unmasked").env("PATH", format!("{path}/usr/bin:/bin"));
        let output = command.env("TMPDIR", &temporary).output().unwrap();
        assert_eq!(fs::read_dir(temporary).unwrap().count(), 0, "{output:?}");
        output
    }
}

fn decision(path: &str, input: &Value, result: &Value) -> Value {
    json!({ "decision_id": "decision-1", "labels": { "id": "1" }, "path": path, "input": input, "result": result, "timestamp": "2026-03-01T12:00:00Z" })
}

/// What stands there holds of OPA itself: it is asked by `opa eval` first, but for what is of that time.
#[test]
fn a_real_opa_says_what_regorus_cannot() {
    let place = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let asked = Asked { folder: place.path(), policy: POLICY.replace("URL", &url) };

    // Its token was valid then, and is not today.
    let then = 1_772_366_400; // 2026-03-01T12:00:00Z
    let input = |role: &str| {
        let token = token(&json!({ "exp": then + 60, "roles": [role] }));
        json!({ "token": token, "list": [0, 1], "nets": ["10.0.0.0/8"], "path": "a" })
    };
    let served = asked.why(&decision("authz/allow", &input("admin"), &json!(true)), true);
    let text = String::from_utf8_lossy(&served.stdout).into_owned();
    assert!(text.contains("by OPA 1."), "{text}");
    assert!(text.contains("as it was recorded.") && text.contains("p.rego:7  gave it"), "{text}");
    assert_eq!(served.status.code(), Some(0), "{text}");

    let denied = asked.why(&decision("authz/allow", &input("user"), &json!(false)), true);
    let text = String::from_utf8_lossy(&denied.stdout).into_owned();
    assert!(text.contains("line 12: claims.roles[j] == \"admin\""), "{text}");
    assert!(text.contains("is \"user\"") || text.contains("is [\"user\"]"), "{text}");
    // What another answered then is not known: it is not asked again.
    assert!(text.contains("UNCERTAIN") && text.contains("http.send answers otherwise"), "{text}");
    assert_eq!(denied.status.code(), Some(3));
    listener.set_nonblocking(true).unwrap();
    assert!(listener.accept().is_err(), "http.send was sent");

    // What it answered, it answers again.
    let mut recorded = decision("authz/allow", &input("user"), &json!(true));
    let request = json!([{ "url": url, "method": "get" }]).to_string();
    recorded["nd_builtin_cache"] = json!({ "http.send": { request: { "status_code": 200 } } });
    let text = String::from_utf8_lossy(&asked.why(&recorded, true).stdout).into_owned();
    assert!(text.contains("p.rego:15  gave it"), "{text}");
    assert!(listener.accept().is_err(), "http.send was sent");

    let result = json!(["short"]);
    let said = asked.why(&decision("authz/reasons", &input("user"), &result), true);
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(text.contains("as it was recorded.") && text.contains("p.rego:22  gave it"), "{text}");
    assert!(text.contains("net.cidr_merge(input.nets) is [\"10.0.0.0/8\"]"), "{text}");
    assert_eq!(
        (said.status.code(), eval(&asked, "authz.reasons", &input("user"))),
        (Some(0), result)
    );

    // Without one it is said that it would know more.
    let alone = asked.why(&decision("authz/allow", &input("user"), &json!(false)), false);
    let text = String::from_utf8_lossy(&alone.stdout).into_owned();
    assert!(text.contains("an `opa` on the PATH"), "{text}");
    assert_eq!(alone.status.code(), Some(3));

    let asked = Asked { folder: place.path(), policy: OLD.into() };
    let input = json!({ "name": "abel", "age": 17 });
    let said = asked.why(&decision("old/allow", &input, &json!(false)), true);
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(text.contains("ends at: input.age > 17") && text.contains("by OPA 1."), "{text}");
    assert_eq!(said.status.code(), Some(0), "{text}");
}

/// What `opa eval` says.
fn eval(asked: &Asked<'_>, rule: &str, input: &Value) -> Value {
    let file = asked.folder.join("input.json");
    fs::write(&file, input.to_string()).unwrap();
    let mut command = Command::new(address("OPA_BIN"));
    command.args(["eval", "--format", "json", "--data"]).arg(asked.folder.join("bundle"));
    let output = command.arg("--input").arg(file).arg(format!("data.{rule}")).output().unwrap();
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    said["result"][0]["expressions"][0]["value"].clone()
}
