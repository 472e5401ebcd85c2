//! Builtins of OPA's that regorus lacks, or that answer otherwise now: what is a few lines is answered here, the clock stands where
//! the decision's did, what OPA recorded of them (`nd_builtin_cache`) is answered again, and of the others it is known that
//! they are not.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use regorus::{Engine, Value};
use ring::{digest, hmac};
use serde_json::{Value as Json, json};

use super::{texts, yaml};
use crate::decision::ids::hex;
use crate::rego::{SourceFile, as_opa};

/// What is answered here, with how many arguments.
type Answered = (&'static str, u8, fn(&[Json]) -> Option<Json>);

const ANSWERED: [Answered; 14] = [
    ("crypto.hmac.equal", 2, |given| Some(json!(text(given, 0)? == text(given, 1)?))),
    ("crypto.hmac.sha1", 2, |given| signed(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, given)),
    ("crypto.hmac.sha256", 2, |given| signed(hmac::HMAC_SHA256, given)),
    ("crypto.hmac.sha512", 2, |given| signed(hmac::HMAC_SHA512, given)),
    ("crypto.sha1", 1, |given| digested(&digest::SHA1_FOR_LEGACY_USE_ONLY, given)),
    ("crypto.sha256", 1, |given| digested(&digest::SHA256, given)),
    ("io.jwt.decode", 1, decoded),
    ("io.jwt.verify_hs256", 2, |given| verified(hmac::HMAC_SHA256, given)),
    ("io.jwt.verify_hs384", 2, |given| verified(hmac::HMAC_SHA384, given)),
    ("io.jwt.verify_hs512", 2, |given| verified(hmac::HMAC_SHA512, given)),
    ("net.cidr_intersects", 2, |given| {
        let (a, b) = (network(text(given, 0)?)?, network(text(given, 1)?)?);
        Some(json!(intersects(a, b)))
    }),
    ("time.now_ns", 0, |_| None),
    ("yaml.is_valid", 1, |given| {
        Some(json!(text(given, 0).is_some_and(|text| yaml::read(text).is_ok())))
    }),
    ("yaml.unmarshal", 1, |given| yaml::read(text(given, 0)?).ok()),
];

/// What is not, and OPA 1.22 has: with how many arguments. Those of `CHANGING` may be in what OPA recorded.
const LACKING: [(&str, u8); 49] = [
    ("all", 1),
    ("any", 1),
    ("array.flatten", 1),
    ("cast_array", 1),
    ("cast_boolean", 1),
    ("cast_null", 1),
    ("cast_object", 1),
    ("cast_set", 1),
    ("cast_string", 1),
    ("crypto.hmac.md5", 2),
    ("crypto.md5", 1),
    ("crypto.parse_private_keys", 1),
    ("crypto.x509.parse_and_verify_certificates", 1),
    ("crypto.x509.parse_and_verify_certificates_with_options", 2),
    ("crypto.x509.parse_certificate_request", 1),
    ("crypto.x509.parse_certificates", 1),
    ("crypto.x509.parse_keypair", 2),
    ("crypto.x509.parse_rsa_private_key", 1),
    ("graphql.is_valid", 2),
    ("graphql.parse", 2),
    ("graphql.parse_and_verify", 2),
    ("graphql.parse_query", 1),
    ("graphql.parse_schema", 1),
    ("graphql.schema_is_valid", 1),
    ("io.jwt.decode_verify", 2),
    ("io.jwt.encode_sign", 3),
    ("io.jwt.encode_sign_raw", 3),
    ("io.jwt.verify_eddsa", 2),
    ("io.jwt.verify_es256", 2),
    ("io.jwt.verify_es384", 2),
    ("io.jwt.verify_es512", 2),
    ("io.jwt.verify_ps256", 2),
    ("io.jwt.verify_ps384", 2),
    ("io.jwt.verify_ps512", 2),
    ("io.jwt.verify_rs256", 2),
    ("io.jwt.verify_rs384", 2),
    ("io.jwt.verify_rs512", 2),
    ("json.match_schema", 2),
    ("json.verify_schema", 1),
    ("net.cidr_contains_matches", 2),
    ("net.cidr_merge", 1),
    ("providers.aws.sign_req", 3),
    ("re_match", 2),
    ("rego.parse_module", 2),
    ("strings.render_template", 2),
    ("strings.split_n", 3),
    ("uri.is_valid", 1),
    ("uri.parse", 1),
    ("yaml.marshal", 1),
];

/// What answers otherwise now or here.
const CHANGING: [(&str, u8); 7] = [
    ("http.send", 1),
    ("net.lookup_ip_addr", 1),
    ("opa.runtime", 0),
    ("rand.intn", 2),
    ("rego.metadata.chain", 0),
    ("rego.metadata.rule", 0),
    ("uuid.rfc4122", 1),
];

/// What builtins are to an evaluation.
#[derive(Debug, Clone, Default)]
pub struct Builtins {
    /// Nanoseconds; without a time it is today's clock.
    clock: Option<Arc<AtomicI64>>,
    /// Builtins, by their arguments, and what they answered.
    recorded: Arc<Json>,
    /// OPA itself evaluates, which has them all.
    by_opa: bool,
}

impl Builtins {
    pub fn of(now: Option<i64>, recorded: Option<&str>) -> Builtins {
        let recorded = recorded.and_then(|raw| serde_json::from_str(raw).ok()).unwrap_or_default();
        Builtins {
            clock: now.map(|now| Arc::new(AtomicI64::new(now))),
            recorded: Arc::new(recorded),
            by_opa: false,
        }
    }

    /// The same where OPA itself evaluates.
    pub fn by_opa(self) -> Builtins {
        Builtins { by_opa: true, ..self }
    }

    /// The time that the clock shows.
    pub fn now(&self) -> Option<i64> {
        self.clock.as_ref().map(|clock| clock.load(Ordering::Relaxed))
    }

    /// Those that OPA itself is not to evaluate: they ask somebody else, or what they answered is recorded.
    pub fn replaced(&self) -> Vec<&str> {
        let is_name =
            |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'));
        let recorded = self.recorded.as_object().into_iter().flatten();
        let recorded = recorded.map(|(name, _)| name.as_str());
        let recorded = recorded.filter(|name| is_name(name) && self.has(name));
        let mut all: Vec<&str> = recorded.collect();
        let ask = ["http.send", "net.lookup_ip_addr"].into_iter();
        all.extend(ask.filter(|name| !self.has(name)));
        all
    }

    /// What OPA recorded of one: its arguments, and what it answered.
    pub fn recorded<'b>(&'b self, name: &str) -> impl Iterator<Item = (Vec<Json>, &'b Json)> + 'b {
        let all = self.recorded.get(name).and_then(Json::as_object).into_iter().flatten();
        all.filter_map(|(given, answer)| Some((serde_json::from_str(given).ok()?, answer)))
    }

    /// Sets the clock to another time.
    pub fn at(&self, now: i64) {
        if let Some(clock) = &self.clock {
            clock.store(now, Ordering::Relaxed);
        }
    }

    /// Whether OPA recorded what it answered.
    pub fn has(&self, name: &str) -> bool {
        self.recorded(name).next().is_some()
    }

    /// Whether it is lacking here, and nobody knows what it answered.
    pub fn lacks(&self, name: &str) -> bool {
        !self.by_opa && LACKING.iter().any(|(lacking, _)| *lacking == name) && !self.has(name)
    }

    /// Whether regorus evaluates.
    pub fn by_regorus(&self) -> bool {
        !self.by_opa
    }

    /// Whether it answers otherwise now or here.
    pub fn changes(&self, name: &str) -> bool {
        let clock = name == "time.now_ns" && self.clock.is_none();
        (clock || CHANGING.iter().any(|(changing, _)| *changing == name)) && !self.has(name)
    }

    /// Whether the decision's time is asked for, and not recorded.
    pub fn is_clock(&self, name: &str) -> bool {
        name == "time.now_ns" && self.clock.is_some() && !self.has(name)
    }

    /// Makes them known to an engine.
    pub fn register(&self, engine: &mut Engine, policies: &[SourceFile]) -> Result<(), String> {
        let here = |name: &str| {
            ANSWERED.iter().any(|(answered, ..)| *answered == name)
                || LACKING.iter().chain(&CHANGING).any(|(other, _)| *other == name)
        };
        as_opa::put_noting(engine, policies, here)?;
        let mut add = |name: &'static str, arguments: u8, answer: fn(&[Json]) -> Option<Json>| {
            let builtins = self.clone();
            let call = move |given: Vec<Value>| Ok(builtins.answer(name, &given, answer));
            engine.add_extension(name.to_owned(), arguments, Box::new(call))
        };
        for (name, arguments, answer) in ANSWERED {
            // Without a time regorus' own clock answers.
            if name != "time.now_ns" || self.clock.is_some() || self.has(name) {
                add(name, arguments, answer).map_err(|e| e.to_string())?;
            }
        }
        for (name, arguments) in LACKING.into_iter().chain(CHANGING) {
            let own = matches!(name, "opa.runtime" | "rand.intn" | "uuid.rfc4122");
            if !own || self.has(name) {
                add(name, arguments, |_| None).map_err(|e| e.to_string())?;
            }
        }
        Ok(())
    }

    fn answer(&self, name: &str, given: &[Value], answer: fn(&[Json]) -> Option<Json>) -> Value {
        let given: Vec<Json> = given.iter().filter_map(texts::json).collect();
        if let Some((_, answer)) = self.recorded(name).find(|(recorded, _)| *recorded == given) {
            return Value::from(answer.clone());
        }
        match self.now() {
            Some(now) if name == "time.now_ns" => Value::from(now),
            _ => answer(&given).map_or(Value::Undefined, Value::from),
        }
    }
}

fn text(given: &[Json], at: usize) -> Option<&str> {
    given.get(at)?.as_str()
}

fn digested(how: &'static digest::Algorithm, given: &[Json]) -> Option<Json> {
    Some(hex(digest::digest(how, text(given, 0)?.as_bytes()).as_ref()).into())
}

fn signed(how: hmac::Algorithm, given: &[Json]) -> Option<Json> {
    let key = hmac::Key::new(how, text(given, 1)?.as_bytes());
    Some(hex(hmac::sign(&key, text(given, 0)?.as_bytes()).as_ref()).into())
}

fn part(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()
}

/// Header, payload and signature, in hexadecimal.
fn decoded(given: &[Json]) -> Option<Json> {
    let parts: Vec<&str> = text(given, 0)?.split('.').collect();
    let [header, payload, signature] = parts[..] else { return None };
    let header: Json = serde_json::from_slice(&part(header)?).ok()?;
    let payload: Json = serde_json::from_slice(&part(payload)?).ok()?;
    Some(json!([header, payload, hex(&part(signature)?)]))
}

fn verified(how: hmac::Algorithm, given: &[Json]) -> Option<Json> {
    let (token, secret) = (text(given, 0)?, text(given, 1)?);
    decoded(given)?;
    let (said, signature) = token.rsplit_once('.')?;
    let key = hmac::Key::new(how, secret.as_bytes());
    Some(json!(hmac::verify(&key, said.as_bytes(), &part(signature)?).is_ok()))
}

/// An address's bits at the top of 128, and how many of them say the network.
fn network(text: &str) -> Option<(bool, u128, u32)> {
    let (address, length) = text.split_once('/')?;
    let (is_v4, bits, most) = match address.parse().ok()? {
        IpAddr::V4(address) => (true, u128::from(address.to_bits()) << 96, 32),
        IpAddr::V6(address) => (false, address.to_bits(), 128),
    };
    let length = length.parse().ok().filter(|length| *length <= most)?;
    Some((is_v4, bits, length))
}

fn intersects(a: (bool, u128, u32), b: (bool, u128, u32)) -> bool {
    let length = a.2.min(b.2);
    a.0 == b.0 && (a.1 ^ b.1).checked_shr(128 - length).unwrap_or(0) == 0
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]
mod tests {
    use super::*;

    /// As OPA 1.22 answers.
    #[test]
    fn what_is_answered_here_is_what_opa_answers() {
        let token = "eyJhbGciOiJIUzI1NiJ9.e30.XmNK3GpH3Ys_7wsYBfq4C3M6goz71I7dTgUkuIa5lyQ";
        let calls = format!(
            r#"[crypto.sha1("a"), crypto.hmac.equal("a", "b"), net.cidr_intersects("10.0.0.0/8", "10.1.0.0/16"),
            net.cidr_intersects("10.0.0.0/8", "11.1.0.0/16"), yaml.unmarshal("a: [1]"), io.jwt.verify_hs256("{token}", "secret"),
            crypto.hmac.sha256("a", "k"), io.jwt.decode("{token}")[0].alg, crypto.sha256("a"), time.now_ns(), http.send({{"url": "u"}}).status_code]"#
        );
        let mut engine = Engine::new();
        let recorded = r#"{"http.send":{"[{\"url\":\"u\"}]":{"status_code":418}}}"#;
        Builtins::of(Some(7), Some(recorded)).register(&mut engine, &[]).unwrap();
        engine.add_policy("p.rego".into(), format!("package p\nx := {calls}\n")).unwrap();
        let said = texts::json(&engine.eval_rule("data.p.x".into()).unwrap()).unwrap();
        let wanted = json!([
            "86f7e437faa5a7fce15d1ddcb9eaeaea377667b8", false, true, false, {"a": [1]}, true,
            "78da91511e675587f5b9df78bedebaf5560da2abb88162ee875dcdf744951d9e", "HS256", "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb", 7, 418
        ]);
        assert_eq!(said, wanted);
    }
}
