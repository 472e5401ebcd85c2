//! Values from outside the pipeline file: `${env:NAME}`, `${env:NAME:-default}` and `${file:PATH}`
//! (its content without a trailing line end). `$${` stands for `${`.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use zeroize::Zeroizing;

/// A value that is never printed, and gone from memory once it is not needed.
#[derive(Clone, Deserialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    pub fn new(value: impl Into<String>) -> Secret {
        Secret(Zeroizing::new(value.into()))
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl JsonSchema for Secret {
    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "x-secret": "always", "description": "A secret, given as a reference: ${env:NAME} or ${file:PATH}. It must not be in the file itself, and is never printed." })
    }
}

/// Schema of text that is a secret if what it is called says so: the value of a header or of a librdkafka property.
pub struct Called;

impl JsonSchema for Called {
    fn schema_name() -> Cow<'static, str> {
        "Called".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "x-secret": "by name", "description": "Text. If the name is that of a secret (password, token, key, ..), a reference: ${env:NAME} or ${file:PATH}. Never printed." })
    }
}

/// Where values come from; tests have their own.
pub trait Outside {
    fn env(&self, name: &str) -> Option<String>;
    fn file(&self, path: &str) -> Result<Zeroizing<String>, String>;
}

/// The process's environment and the file system.
pub struct Real;

impl Outside for Real {
    #[allow(clippy::disallowed_methods)] // This is the one place.
    fn env(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn file(&self, path: &str) -> Result<Zeroizing<String>, String> {
        super::tracked::reads(path.as_ref());
        std::fs::read_to_string(path).map(Zeroizing::new).map_err(|e| e.to_string())
    }
}

/// Replaces references in `text`. `None` if there are none. An error never holds a resolved value.
pub fn resolve(text: &str, outside: &dyn Outside) -> Option<Result<Zeroizing<String>, String>> {
    text.contains("${").then(|| replace(text, outside))
}

/// The variables in `text` that are not set, and whose defaults stand instead.
pub fn defaulted(text: &str, outside: &dyn Outside) -> Vec<String> {
    let mut names = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let escaped = rest[..start].ends_with('$');
        rest = &rest[start + 2..];
        let reference = rest.split_once('}').filter(|_| !escaped).map(|(inside, _)| inside);
        let variable = reference.and_then(|r| r.strip_prefix("env:")?.split_once(":-"));
        if let Some((name, _)) = variable
            && outside.env(name).is_none_or(|value| value.is_empty())
        {
            names.push(name.to_owned());
        }
    }
    names
}

fn replace(text: &str, outside: &dyn Outside) -> Result<Zeroizing<String>, String> {
    let mut out = Zeroizing::new(String::new());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        if rest[..start].ends_with('$') {
            out.push_str(&rest[..start]);
            out.push('{');
            rest = &rest[start + 2..];
            continue;
        }
        out.push_str(&rest[..start]);
        let end = rest[start..].find('}').ok_or("${ without a closing }")? + start;
        out.push_str(&one(&rest[start + 2..end], outside)?);
        rest = &rest[end + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

fn one(reference: &str, outside: &dyn Outside) -> Result<Zeroizing<String>, String> {
    match reference.split_once(':') {
        Some(("env", name)) => {
            let (name, default) = match name.split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (name, None),
            };
            match (outside.env(name).filter(|v| !v.is_empty()), default) {
                (Some(value), _) => Ok(Zeroizing::new(value)),
                (None, Some(default)) => Ok(Zeroizing::new(default.to_owned())),
                (None, None) => Err(format!(
                    "the environment variable {name} is not set; set it, or write ${{env:{name}:-default}}"
                )),
            }
        }
        Some(("file", path)) => {
            let content =
                outside.file(path).map_err(|e| format!("the file {path} can't be read: {e}"))?;
            Ok(Zeroizing::new(content.trim_end_matches(['\n', '\r']).to_owned()))
        }
        _ => Err(format!(
            "${{{reference}}} is not known; there are ${{env:NAME}} and ${{file:PATH}}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake;

    impl Outside for Fake {
        fn env(&self, name: &str) -> Option<String> {
            (name == "SET").then(|| "value".to_owned())
        }

        fn file(&self, path: &str) -> Result<Zeroizing<String>, String> {
            if path == "/key" {
                Ok(Zeroizing::new("s3cret\n".into()))
            } else {
                Err("no such file".into())
            }
        }
    }

    #[test]
    fn references_are_replaced_and_what_is_missing_is_named() {
        let resolved = |text| resolve(text, &Fake).map(|r| r.map(|value| value.to_string()));
        assert_eq!(resolved("plain $5"), None);
        assert_eq!(resolved("a-${env:SET}-${file:/key}"), Some(Ok("a-value-s3cret".into())));
        assert_eq!(resolved("${env:UNSET:-x:1}"), Some(Ok("x:1".into())));
        assert_eq!(resolved("$${env:SET}"), Some(Ok("${env:SET}".into())));
        assert!(resolved("${env:UNSET}").unwrap().unwrap_err().contains("UNSET is not set"));
        assert!(resolved("${file:/none}").unwrap().unwrap_err().contains("/none can't be read"));
        assert!(resolved("${vault:x}").unwrap().unwrap_err().contains("not known"));
        assert!(resolved("${env:SET").unwrap().is_err());
    }

    #[test]
    fn defaults_are_told_by_the_variables_that_are_not_set() {
        for (text, names) in [
            ("plain", &[][..]),
            ("${env:SET:-x}", &[]),
            ("${env:UNSET}", &[]),
            ("$${env:UNSET:-x}", &[]),
            ("${file:/key}", &[]),
            ("http://${env:HOST:-h}:${env:PORT:-1}${env:SET:-x}", &["HOST", "PORT"]),
            ("${env:HOST:-x", &[]),
        ] {
            assert_eq!(defaulted(text, &Fake), names, "{text}");
        }
    }

    #[test]
    fn a_secret_is_never_printed() {
        assert_eq!(format!("{:?}", Secret::new("canary")), "***");
    }
}
