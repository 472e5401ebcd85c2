//! Names for what a decision has to say of itself: where a Loki label or a part of a CloudWatch stream's
//! name comes from.

use std::borrow::Cow;

use crate::decision::record::Record;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Service,
    Verdict,
    Engine,
    Policy,
    Instance,
    OpaLabel(String),
    Fixed(String),
}

impl Source {
    /// Everything but fixed text.
    fn named(name: &str) -> Option<Source> {
        Some(match name {
            "service" => Source::Service,
            "verdict" => Source::Verdict,
            "engine" => Source::Engine,
            "policy" => Source::Policy,
            "instance" => Source::Instance,
            _ => Source::OpaLabel(
                name.strip_prefix("label.").filter(|label| !label.is_empty())?.to_owned(),
            ),
        })
    }

    pub fn value<'r>(&'r self, record: &'r Record<'_>) -> Cow<'r, str> {
        match self {
            Source::Service => Cow::Borrowed(&*record.service),
            Source::Verdict => Cow::Borrowed(record.verdict.as_str()),
            Source::Engine => Cow::Borrowed(&*record.engine),
            Source::Policy => Cow::Borrowed(&*record.policy),
            Source::Instance => record.instance.as_deref().map_or(Cow::Borrowed(""), Cow::Borrowed),
            Source::OpaLabel(name) => record.label(name).unwrap_or_default(),
            Source::Fixed(text) => Cow::Borrowed(text),
        }
    }
}

/// A Loki label and its source.
pub fn label(label: &str, source: &str) -> Result<Source, String> {
    let name_fits = label.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !name_fits {
        return Err(format!(
            "{label:?} is no Loki label; letters, digits and _, and no digit first"
        ));
    }
    if let Some(text) = source.strip_prefix('=') {
        return Ok(Source::Fixed(text.to_owned()));
    }
    Source::named(source).ok_or_else(|| {
        let names =
            "service, verdict, engine, policy, instance, label.<OPA label> or =<fixed text>";
        format!("{source:?} is not where a label can come from: {names}")
    })
}

/// Text with {names} in it.
pub fn template(text: &str) -> Result<Vec<Source>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        if open > 0 {
            parts.push(Source::Fixed(rest[..open].to_owned()));
        }
        let Some(len) = rest[open..].find('}') else {
            return Err(format!("{text:?} has a {{ that is not closed"));
        };
        let name = &rest[open + 1..open + len];
        parts.push(Source::named(name).ok_or_else(|| {
            format!("{{{name}}} stands for nothing; there are {{service}}, {{verdict}}, {{engine}}, {{policy}}, {{instance}} and {{label.<OPA label>}}")
        })?);
        rest = &rest[open + len + 1..];
    }
    if !rest.is_empty() {
        parts.push(Source::Fixed(rest.to_owned()));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_read_or_told_what_is_wrong() {
        let fixed = |t: &str| Source::Fixed(t.to_owned());
        assert_eq!(
            template("opa/{service}-{label.zone}"),
            Ok(vec![fixed("opa/"), Source::Service, fixed("-"), Source::OpaLabel("zone".into())])
        );
        assert_eq!(template("plain"), Ok(vec![fixed("plain")]));
        assert!(template("{servce}").unwrap_err().contains("{servce} stands for nothing"));
        assert!(template("{service").unwrap_err().contains("not closed"));
        assert!(template("{label.}").is_err());
    }
}
