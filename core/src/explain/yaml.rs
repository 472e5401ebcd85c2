//! Data in YAML as OPA reads it: the first document, with YAML 1.2's types, and of YAML 1.1 merge keys (`<<`), underscores and
//! octal numbers (`0123`). Other keys than texts become texts, as in JSON.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use saphyr_parser::{Event, Input, Parser, ScalarStyle, Span};
use serde_json::{Map, Number, Value};

/// Values within values.
const DEEPEST: usize = 128;
/// So many values an alias may make of a few.
const MOST: usize = 1_000_000;

/// An error begins with its line.
pub fn read(text: &str) -> Result<Value, String> {
    let parser = Parser::new_from_str(text);
    let mut reader = Reader { parser, anchors: Vec::new(), values: 0 };
    loop {
        match reader.next()? {
            (Event::StreamEnd, _) => return Ok(Value::Null),
            (Event::DocumentStart(_), _) => {
                let (event, span) = reader.next()?;
                return reader.value(event, &span, 0);
            }
            _ => {}
        }
    }
}

struct Reader<'i, T: Input> {
    parser: Parser<'i, T>,
    anchors: Vec<(usize, Value)>,
    values: usize,
}

fn at(span: &Span, what: &str) -> String {
    format!("line {}: {what}", span.start.line())
}

impl<'i, T: Input> Reader<'i, T> {
    fn next(&mut self) -> Result<(Event<'i>, Span), String> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(e)) => Err(format!("line {}: not YAML: {}", e.marker().line(), e.info())),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn value(&mut self, event: Event<'i>, span: &Span, depth: usize) -> Result<Value, String> {
        self.values += 1;
        if depth > DEEPEST || self.values > MOST {
            return Err(at(span, "too many values, or values within values"));
        }
        let (anchor, value) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let tag = tag.as_ref().map(|tag| tag.suffix.as_str());
                (anchor, scalar(&text, style, tag).map_err(|e| at(span, &e))?)
            }
            Event::SequenceStart(anchor, _) => {
                let mut list = Vec::new();
                loop {
                    match self.next()? {
                        (Event::SequenceEnd, _) => break,
                        (event, span) => list.push(self.value(event, &span, depth + 1)?),
                    }
                }
                (anchor, Value::Array(list))
            }
            Event::MappingStart(anchor, _) => (anchor, self.mapping(depth)?),
            Event::Alias(id) => {
                let known = self.anchors.iter().find(|(anchor, _)| *anchor == id);
                let (_, value) = known.ok_or_else(|| at(span, "an alias to nothing"))?;
                self.values += size(value);
                (0, value.clone())
            }
            _ => return Err(at(span, "expected a value")),
        };
        if anchor != 0 {
            self.anchors.push((anchor, value.clone()));
        }
        Ok(value)
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, String> {
        let (mut members, mut merged) = (Map::new(), Vec::new());
        loop {
            let (event, span) = self.next()?;
            let merges = match &event {
                Event::MappingEnd => break,
                Event::Scalar(text, ScalarStyle::Plain, ..) => text == "<<",
                _ => false,
            };
            let name = match self.value(event, &span, depth + 1)? {
                Value::String(name) => name,
                Value::Number(name) => name.to_string(),
                Value::Bool(name) => name.to_string(),
                _ => return Err(at(&span, "a key is no text")),
            };
            let (event, span) = self.next()?;
            let value = self.value(event, &span, depth + 1)?;
            match merges {
                true => merged.push(value),
                false => _ = members.insert(name, value),
            }
        }
        // What is written here wins, and of what is merged the first.
        let merged = merged.into_iter().flat_map(|value| match value {
            Value::Array(list) => list,
            one => vec![one],
        });
        for value in merged {
            let Value::Object(other) = value else { continue };
            for (name, value) in other {
                members.entry(name).or_insert(value);
            }
        }
        Ok(Value::Object(members))
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::Array(list) => 1 + list.iter().map(size).sum::<usize>(),
        Value::Object(members) => 1 + members.values().map(size).sum::<usize>(),
        _ => 1,
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&str>) -> Result<Value, String> {
    match tag {
        Some("str") => return Ok(text.into()),
        Some("binary") => {
            let text: String = text.split_whitespace().collect();
            let bytes = STANDARD.decode(text).map_err(|_| "!!binary is no base64")?;
            return Ok(String::from_utf8_lossy(&bytes).into_owned().into());
        }
        _ => {}
    }
    if !matches!(style, ScalarStyle::Plain) {
        return Ok(text.into());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Ok(Value::Null),
        "true" | "True" | "TRUE" => Ok(true.into()),
        "false" | "False" | "FALSE" => Ok(false.into()),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "-.inf" | "-.Inf" | "-.INF" | ".nan" | ".NaN"
        | ".NAN" => Err(format!("{text} is no number in JSON")),
        _ => Ok(number(text).map_or_else(|| text.into(), Value::Number)),
    }
}

fn number(text: &str) -> Option<Number> {
    let plain = text.replace('_', "");
    let (sign, digits) = match plain.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", plain.strip_prefix('+').unwrap_or(&plain)),
    };
    let bare = digits.trim_start_matches('.');
    if !bare.starts_with(|c: char| c.is_ascii_digit()) || digits.len() - bare.len() > 1 {
        return None;
    }
    let radix = |prefix: &str, radix| {
        let digits = digits.strip_prefix(prefix)?;
        i64::from_str_radix(&format!("{sign}{digits}"), radix).ok()
    };
    let whole = radix("0x", 16).or_else(|| radix("0o", 8)).or_else(|| radix("0b", 2));
    let octal = || (digits.len() > 1).then(|| radix("0", 8)).flatten();
    if let Some(whole) = whole.or_else(octal) {
        return Some(whole.into());
    }
    if !digits.chars().all(|c| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-')) {
        return None;
    }
    let whole = plain.trim_start_matches('+').parse::<i64>().ok().map(Number::from);
    let unsigned = || plain.parse::<u64>().ok().map(Number::from);
    whole.or_else(unsigned).or_else(|| {
        let value = plain.parse::<f64>().ok()?;
        Number::from_f64(value)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]
mod tests {
    use super::*;

    /// As `opa eval -d data.yaml data` of OPA 1.22 has it.
    #[test]
    fn yaml_is_read_as_opa_does() {
        let text = "a: yes\nb: on\nc: 0123\nd: 0o17\ne: 0x1F\nf: 1_000\ng: ~\nh: 2024-01-01\ni: .5\nj: 1e3\n\
            1: one\ntrue: t\n1.5: f\nm: &x {p: 1, q: 2}\nn: {<<: *x, q: 3}\no: \"yes\"\nq: True\ns: 190:20:30\n\
            t: !!str 12\nu: +5\nw: !!binary aGVsbG8=\nz: NULL\nl:\n- ann\n- |\n  x\n---\nsecond: 1\n";
        let wanted = serde_json::json!({"a": "yes", "b": "on", "c": 83, "d": 15, "e": 31, "f": 1000, "g": null,
            "h": "2024-01-01", "i": 0.5, "j": 1000.0, "1": "one", "true": "t", "1.5": "f", "m": {"p": 1, "q": 2},
            "n": {"q": 3, "p": 1}, "o": "yes", "q": true, "s": "190:20:30", "t": "12", "u": 5, "w": "hello",
            "z": null, "l": ["ann", "x\n"]});
        assert_eq!(read(text).unwrap(), wanted);
    }

    #[test]
    fn what_is_no_yaml_is_told_with_its_line() {
        for (text, line) in [("a: 1\nb: [", 2), ("a: .inf", 1), ("a: 1\n? [x]\n: 2\n", 2)] {
            let error = read(text).unwrap_err();
            let told: usize = error[5..].split(':').next().unwrap().parse().unwrap();
            assert!(error.starts_with("line ") && told >= line, "{error}");
        }
        let bomb = (0..40).fold("a0: &a0 [1, 1]\n".to_owned(), |text, n| {
            format!("{text}a{m}: &a{m} [*a{n}, *a{n}]\n", m = n + 1)
        });
        assert!(read(&bomb).unwrap_err().contains("too many"));
    }
}
