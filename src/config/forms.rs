//! Text that has a form: globs, JSON pointers, label sources, templates. It is parsed when the file is
//! loaded, and a setting that exists is valid; the schema names the form (`format`), so that all that is
//! wrong with a file can be told at once, with its place.

use std::borrow::Cow;
use std::fmt;
use std::ops::Deref;

use globset::{GlobBuilder, GlobMatcher};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Error};

use crate::decision::json;
use crate::decision::label::{self, LabelSource};
use crate::protect::redact::{self, Redaction};
use crate::protect::rules::Pattern;

/// A form that text can have.
pub trait Form {
    /// What the schema's `format` says.
    const NAME: &'static str;
    const DESCRIPTION: &'static str;
    /// Text of this form.
    const EXAMPLE: &'static str;
    type Value: Clone;

    fn parse(text: &str) -> Result<Self::Value, String>;
}

/// Text that was parsed. Equal to another if the text is.
pub struct Parsed<F: Form> {
    text: String,
    value: F::Value,
}

impl<F: Form> Parsed<F> {
    pub fn new(text: &str) -> Result<Parsed<F>, String> {
        Ok(Parsed { value: F::parse(text)?, text: text.to_owned() })
    }

    pub fn value(&self) -> F::Value {
        self.value.clone()
    }
}

impl<F: Form> Deref for Parsed<F> {
    type Target = F::Value;

    fn deref(&self) -> &F::Value {
        &self.value
    }
}

impl<F: Form> Clone for Parsed<F> {
    fn clone(&self) -> Parsed<F> {
        Parsed { text: self.text.clone(), value: self.value.clone() }
    }
}

impl<F: Form> PartialEq for Parsed<F> {
    fn eq(&self, other: &Parsed<F>) -> bool {
        self.text == other.text
    }
}

impl<F: Form> fmt::Debug for Parsed<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl<'de, F: Form> Deserialize<'de> for Parsed<F> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Parsed<F>, D::Error> {
        Parsed::new(&Cow::<str>::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

impl<F: Form> JsonSchema for Parsed<F> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        F::NAME.into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": F::NAME, "description": F::DESCRIPTION })
    }
}

/// Why text is not of its form.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong {
    pub message: String,
    /// What would be; it stands in, so that the rest of the file can still be looked at.
    pub example: &'static str,
}

/// What is wrong with text of a form. A form that is not ours is taken for an annotation.
pub fn check(form: &str, text: &str) -> Result<(), Wrong> {
    fn of<F: Form>(form: &str, text: &str) -> Option<Result<(), Wrong>> {
        let wrong = |message| Wrong { message, example: F::EXAMPLE };
        (form == F::NAME).then(|| F::parse(text).map(drop).map_err(wrong))
    }
    of::<form::Glob>(form, text)
        .or_else(|| of::<form::JsonPointer>(form, text))
        .or_else(|| of::<form::LabelSource>(form, text))
        .or_else(|| of::<form::Template>(form, text))
        .or_else(|| of::<form::RedactPath>(form, text))
        .unwrap_or(Ok(()))
}

/// A name that a Loki label can have; for the keys of a mapping.
pub const LABEL_NAME: &str = "^[A-Za-z_][A-Za-z0-9_]*$";

pub type Glob = Parsed<form::Glob>;
pub type JsonPointer = Parsed<form::JsonPointer>;
pub type Label = Parsed<form::LabelSource>;
pub type Template = Parsed<form::Template>;
pub type RedactPath = Parsed<form::RedactPath>;

/// What a sink alone does not get.
pub fn redaction(paths: &[RedactPath]) -> Redaction {
    Redaction::new(paths.iter().map(RedactPath::value))
}

pub mod form {
    use super::{Form, GlobBuilder, GlobMatcher, Pattern, json, label, redact};

    /// A glob on a path: `*` within a part, `**` across parts.
    pub struct Glob;
    pub struct JsonPointer;
    pub struct LabelSource;
    pub struct Template;
    pub struct RedactPath;

    impl Form for Glob {
        const NAME: &'static str = "glob";
        const DESCRIPTION: &'static str = "A glob: * matches within a segment, ** across segments.";
        const EXAMPLE: &'static str = "**";
        type Value = GlobMatcher;

        fn parse(text: &str) -> Result<GlobMatcher, String> {
            let glob = GlobBuilder::new(text.trim_start_matches('/'))
                .literal_separator(true)
                .build()
                .map_err(|e| format!("not a glob: {e}"))?;
            Ok(glob.compile_matcher())
        }
    }

    impl Form for JsonPointer {
        const NAME: &'static str = "json-pointer";
        const DESCRIPTION: &'static str = "A JSON pointer (RFC 6901).";
        const EXAMPLE: &'static str = "/input";
        type Value = json::Pointer;

        fn parse(text: &str) -> Result<json::Pointer, String> {
            json::Pointer::parse(text).ok_or_else(|| {
                format!("{text:?} is not a JSON pointer; it is empty or starts with / (RFC 6901)")
            })
        }
    }

    impl Form for LabelSource {
        const NAME: &'static str = "label-source";
        const DESCRIPTION: &'static str = "Source of a label's value: service, verdict, engine, policy, instance, label.<OPA label>, or =<fixed text>.";
        const EXAMPLE: &'static str = "service";
        type Value = super::LabelSource;

        fn parse(text: &str) -> Result<super::LabelSource, String> {
            label::source(text)
        }
    }

    impl Form for Template {
        const NAME: &'static str = "template";
        const DESCRIPTION: &'static str = "Text in which {service}, {verdict}, {engine}, {policy}, {instance} and {label.<OPA label>} are replaced by the decision's values.";
        const EXAMPLE: &'static str = "{service}";
        type Value = Vec<super::LabelSource>;

        fn parse(text: &str) -> Result<Vec<super::LabelSource>, String> {
            label::template(text)
        }
    }

    impl Form for RedactPath {
        const NAME: &'static str = "redact-path";
        const DESCRIPTION: &'static str =
            "A JSON pointer in which * matches one segment and ** any number of segments.";
        const EXAMPLE: &'static str = "/input";
        type Value = Pattern;

        fn parse(text: &str) -> Result<Pattern, String> {
            redact::pattern(text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_schema_names_is_what_is_parsed() {
        for (form, good, bad) in [
            ("glob", "a/*/[bc]", "a[b"),
            ("json-pointer", "/a/b", "a"),
            ("label-source", "label.region", "servce"),
            ("template", "opa/{service}", "{servce}"),
            ("redact-path", "/input/**/password", "input"),
        ] {
            assert_eq!(check(form, good), Ok(()), "{form}");
            let wrong = check(form, bad).expect_err(form);
            assert_eq!(check(form, wrong.example), Ok(()), "{form}");
        }
        assert_eq!(check("date-time", "anything"), Ok(()));
    }

    #[test]
    fn globs_do_not_cross_parts_and_begin_without_a_slash() {
        let glob = Glob::new("/http/*/decision").unwrap();
        assert!(glob.is_match("http/authz/decision"));
        assert!(!glob.is_match("http/a/b/decision"));
    }
}
