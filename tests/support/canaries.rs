//! Canaries in the encodings that decisions come with, and the writings in which one might come out.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// Letters and digits by chance, the last one a digit.
pub fn noise(length: usize) -> String {
    let alphabet: Vec<char> = ('a'..='z').chain('A'..='Z').chain('0'..='9').collect();
    (1..length)
        .map(|_| alphabet[rand::random::<u32>() as usize % alphabet.len()])
        .chain(['7'])
        .collect()
}

fn percent(text: &str) -> String {
    text.bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") }
        })
        .collect()
}

fn hex(text: &str) -> String {
    text.bytes().map(|b| format!("{b:02x}")).collect()
}

/// Inputs that hold a secret, each in another encoding.
pub fn inputs(secret: &str) -> Vec<(&'static str, Value)> {
    let body = json!({"user": "bob", "password": secret}).to_string();
    let form = format!("user=bob&client_secret={secret}&x=1");
    let query = format!("/v1/items?page=2&access_token={secret}");
    vec![
        ("JSON in a string", json!({"body": body})),
        ("JSON in JSON in a string", json!({"body": json!({"inner": body}).to_string()})),
        ("a form", json!({"body": form})),
        (
            "a query",
            json!({"path": query, "headers": {"referer": format!("https://a.example{query}")}}),
        ),
        ("base64 of JSON", json!({"raw": STANDARD.encode(&body)})),
        ("base64 of a form", json!({"raw": STANDARD_NO_PAD.encode(&form)})),
        ("base64 of a query", json!({"state": URL_SAFE_NO_PAD.encode(&query)})),
        ("base64 of base64", json!({"raw": STANDARD.encode(STANDARD.encode(&body))})),
        (
            "base64 in a form",
            json!({"body": format!("a=1&s={}", percent(&STANDARD.encode(&body)))}),
        ),
        ("percent-encoding", json!({"q": format!("x={}", percent(&body))})),
        ("percent-encoding twice", json!({"q": format!("x={}", percent(&percent(&body)))})),
        ("entities", json!({"html": body.replace('"', "&quot;")})),
        ("escapes", json!({"log": body.replace('"', "\\u0022")})),
        ("hexadecimal", json!({"hex": hex(&body)})),
        ("JSON that was cut", json!({"log": body[..body.len() - 2]})),
        ("YAML", json!({"config": format!("db:\n  password:\n    {secret}\n  port: 1\n")})),
        (
            "pairs",
            json!({"env": [{"Key": "DB_PASSWORD", "Val": secret}, {"name": "token", "value": secret}]}),
        ),
        ("a list of headers", json!({"headers": [["x-api-key", secret], ["host", "h"]]})),
        (
            "a command",
            json!({"args": ["app", "--password", secret], "cmd": format!("app --token {secret} -v")}),
        ),
        ("a cookie", json!({"headers": {"cookie": format!("a=b; sid={secret}")}})),
        ("a Secret", json!({"object": {"kind": "Secret", "data": {"x": STANDARD.encode(secret)}}})),
        ("markup", json!({"soap": format!("<a><Password>{secret}</Password></a>")})),
        (
            "markup with names and values",
            json!({
                "config": format!("<add key=\"DbPassword\" value=\"{secret}\"/>"),
                "plist": format!("<key>password</key><string>{secret}</string>"),
                "site": format!("<name>db.password</name>\n<value>{secret}</value>"),
                "spring": format!("<property name='password'>{secret}</property>"),
            }),
        ),
        ("types below a name", json!({"password": {"S": secret}, "pwd": {"bytes": secret}})),
        ("a map of tokens", json!({"tokens": {"ci": secret}})),
        (
            "a login of Docker's",
            json!({"auths": {"reg.example": {"auth": STANDARD.encode(format!("bob:{secret}"))}}}),
        ),
        ("a line of YAML", json!({"log": format!("password: correct horse {secret}")})),
        (
            "Terraform",
            json!({
                "change": {"after": {"a": secret, "l": [{"b": secret}]}, "after_sensitive": {"a": true, "l": [{"b": true}]}},
                "outputs": {"x": {"sensitive": true, "value": secret}},
                "expressions": {"password": {"constant_value": secret}},
            }),
        ),
        ("a command in a list", json!({"args": ["docker", "login", "-u", "a", "-p", secret]})),
        (
            "YAML of Kubernetes",
            json!({"yaml_body": format!("kind: Secret\nstringData:\n  db: {secret}\n"),
                "values": [format!("env:\n- name: API_TOKEN\n  value: {secret}\n")]}),
        ),
        ("commas in a value", json!({"log": format!("login, password: a,{secret}, user: x")})),
        ("other languages", json!({"contraseña": secret, "mot_de_passe": secret, "密码": secret})),
        // Found at one place, it stands at others that say nothing.
        (
            "elsewhere",
            json!({
                "password": secret,
                "note": format!("he typed {secret} twice"),
                "seen": {secret: 1, format!("by {secret}"): {"n": 1}},
                "b64": [STANDARD.encode(format!("ab{secret}c")), STANDARD_NO_PAD.encode(secret)],
                "hex": hex(&format!("x {secret}")),
            }),
        ),
    ]
}

/// Records in which a collector left copies of a decision: Fluent Bit's Keep_Log, whole and in pieces.
pub fn copies(decision: &Value) -> Vec<Value> {
    let line = decision.to_string();
    let middle = (line.len() / 2..).find(|at| line.is_char_boundary(*at)).unwrap_or(0);
    let beside = |name: &str, copy: Value| {
        let mut merged = decision.clone();
        merged[name] = copy;
        merged
    };
    vec![
        beside("log", json!(line)),
        beside("log", json!(format!("2026-11-24T12:48:50Z stdout F {line}\n"))),
        beside("log", json!(line[..middle])),
        beside("log", json!(line[middle..])),
        beside("message", json!(STANDARD.encode(&line))),
        beside("log_processed", decision.clone()),
        beside("request", decision["input"].clone()),
        json!({"log": line, "stream": "stdout", "copy": {"input": decision["input"]}}),
        json!({"log": line, "parsed": decision["input"], "kubernetes": {"pod_name": "opa-1"}}),
    ]
}

/// Whether a text tells a secret, plain or in an encoding.
pub fn tells(text: &str, secret: &str) -> bool {
    let mut writings = vec![secret.to_owned(), hex(secret), hex(secret).to_uppercase()];
    // What all of base64 that holds it has in common, by what stands before it.
    for before in 0..3 {
        let padded = [vec![0; before], secret.as_bytes().to_vec()].concat();
        let (from, to) = ((before * 8usize).div_ceil(6), padded.len() * 8 / 6);
        writings.push(STANDARD.encode(padded)[from..to].to_owned());
    }
    writings.iter().any(|writing| text.contains(writing.as_str()))
}
