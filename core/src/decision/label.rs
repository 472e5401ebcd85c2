//! Names for what a decision has to say of itself: where a Loki label or a part of a CloudWatch stream's
//! name comes from.

use std::borrow::Cow;

use super::record::Record;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelSource {
    Service,
    Verdict,
    Engine,
    Policy,
    Instance,
    OpaLabel(String),
    Fixed(String),
}

impl LabelSource {
    /// Everything but fixed text.
    fn named(name: &str) -> Option<LabelSource> {
        Some(match name {
            "service" => LabelSource::Service,
            "verdict" => LabelSource::Verdict,
            "engine" => LabelSource::Engine,
            "policy" => LabelSource::Policy,
            "instance" => LabelSource::Instance,
            _ => LabelSource::OpaLabel(
                name.strip_prefix("label.").filter(|label| !label.is_empty())?.to_owned(),
            ),
        })
    }

    pub fn value<'r>(&'r self, record: &'r Record<'_>) -> Cow<'r, str> {
        match self {
            LabelSource::Service => Cow::Borrowed(&*record.service),
            LabelSource::Verdict => Cow::Borrowed(record.verdict.as_str()),
            LabelSource::Engine => Cow::Borrowed(&*record.engine),
            LabelSource::Policy => Cow::Borrowed(&*record.policy),
            LabelSource::Instance => {
                record.instance.as_deref().map_or(Cow::Borrowed(""), Cow::Borrowed)
            }
            LabelSource::OpaLabel(name) => record.label(name).unwrap_or_default(),
            LabelSource::Fixed(text) => Cow::Borrowed(text),
        }
    }
}

/// Where a label comes from.
pub fn source(text: &str) -> Result<LabelSource, String> {
    if let Some(fixed) = text.strip_prefix('=') {
        return Ok(LabelSource::Fixed(fixed.to_owned()));
    }
    LabelSource::named(text).ok_or_else(|| {
        let names =
            "service, verdict, engine, policy, instance, label.<OPA label> or =<fixed text>";
        format!("{text:?} is not where a label can come from: {names}")
    })
}

/// Text with {names} in it.
pub fn template(text: &str) -> Result<Vec<LabelSource>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        if open > 0 {
            parts.push(LabelSource::Fixed(rest[..open].to_owned()));
        }
        let Some(len) = rest[open..].find('}') else {
            return Err(format!("{text:?} has a {{ that is not closed"));
        };
        let name = &rest[open + 1..open + len];
        parts.push(LabelSource::named(name).ok_or_else(|| {
            format!("{{{name}}} stands for nothing; there are {{service}}, {{verdict}}, {{engine}}, {{policy}}, {{instance}} and {{label.<OPA label>}}")
        })?);
        rest = &rest[open + len + 1..];
    }
    if !rest.is_empty() {
        parts.push(LabelSource::Fixed(rest.to_owned()));
    }
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_or_told_what_is_wrong() {
        assert_eq!(source("label.region"), Ok(LabelSource::OpaLabel("region".into())));
        assert_eq!(source("=prod"), Ok(LabelSource::Fixed("prod".into())));
        assert!(source("servce").unwrap_err().contains("not where a label can come from"));
        assert!(source("label.").is_err());
    }

    #[test]
    fn templates_are_read_or_told_what_is_wrong() {
        let fixed = |t: &str| LabelSource::Fixed(t.to_owned());
        assert_eq!(
            template("opa/{service}-{label.zone}"),
            Ok(vec![
                fixed("opa/"),
                LabelSource::Service,
                fixed("-"),
                LabelSource::OpaLabel("zone".into())
            ])
        );
        assert_eq!(template("plain"), Ok(vec![fixed("plain")]));
        assert!(template("{servce}").unwrap_err().contains("{servce} stands for nothing"));
        assert!(template("{service").unwrap_err().contains("not closed"));
        assert!(template("{label.}").is_err());
    }
}
