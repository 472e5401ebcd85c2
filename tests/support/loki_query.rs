//! What the double of Loki understands of LogQL and of `query_range`.

use super::*;

/// The matchers of `{..}` at the start of a text, and what follows.
pub(super) fn selector(text: &str) -> Option<(Vec<Matcher>, &str)> {
    let mut rest = text.trim_start().strip_prefix('{')?.trim_start();
    let mut all = Vec::new();
    loop {
        if let Some(after) = rest.strip_prefix('}') {
            return Some((all, after.trim()));
        }
        let (one, after) = matcher(rest)?;
        all.push(one);
        rest = after.trim_start();
        rest = rest.strip_prefix(',').map_or(rest, str::trim_start);
    }
}

/// `name="value"` at the start of a text.
pub(super) fn matcher(text: &str) -> Option<(Matcher, &str)> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
    let (name, rest) = text.split_at(end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let rest = rest.trim_start();
    let operator = ["=~", "!~", "!=", "="].into_iter().find(|o| rest.starts_with(o))?;
    let (value, rest) = string(rest[operator.len()..].trim_start())?;
    Some(((name.to_owned(), operator, value), rest))
}

/// A string in quotes or backticks at the start of a text.
pub(super) fn string(text: &str) -> Option<(String, &str)> {
    if let Some(raw) = text.strip_prefix('`') {
        let (value, rest) = raw.split_once('`')?;
        return Some((value.to_owned(), rest));
    }
    let mut value = String::new();
    let mut chars = text.strip_prefix('"')?.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 2..])),
            '\n' => return None,
            '\\' => match chars.next()?.1 {
                'n' => value.push('\n'),
                c @ ('"' | '\\') => value.push(c),
                _ => return None,
            },
            c => value.push(c),
        }
    }
    None
}

pub(super) fn fits(operator: &str, pattern: &str, value: &str) -> bool {
    let whole = || regex_lite::Regex::new(&format!("^(?s:{pattern})$")).unwrap().is_match(value);
    match operator {
        "=" => value == pattern,
        "!=" => value != pattern,
        "=~" => whole(),
        _ => !whole(),
    }
}

/// A selector, then any of `|= "text"`, `|~ "pattern"` and `| label="value"`.
pub(super) struct Query {
    matchers: Vec<Matcher>,
    contains: Vec<String>,
    patterns: Vec<regex_lite::Regex>,
    filters: Vec<Matcher>,
}

impl Query {
    fn parse(text: &str) -> Option<Query> {
        let (matchers, mut rest) = selector(text)?;
        let (mut contains, mut patterns, mut filters) = (Vec::new(), Vec::new(), Vec::new());
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix("|=") {
                let (value, after) = string(after.trim_start())?;
                contains.push(value);
                rest = after.trim();
            } else if let Some(after) = rest.strip_prefix("|~") {
                let (value, after) = string(after.trim_start())?;
                patterns.push(regex_lite::Regex::new(&value).ok()?);
                rest = after.trim();
            } else {
                let (one, after) = matcher(rest.strip_prefix('|')?.trim_start())?;
                filters.push(one);
                rest = after.trim();
            }
        }
        Some(Query { matchers, contains, patterns, filters })
    }

    fn takes(&self, labels: &Labels) -> bool {
        let value = |name: &str| labels.get(name).map_or("", String::as_str);
        self.matchers.iter().all(|(name, operator, v)| fits(operator, v, value(name)))
    }

    /// With the labels of its stream and its metadata.
    fn finds(&self, entry: &Entry, labels: &Labels) -> bool {
        let value = |name: &str| labels.get(name).map_or("", String::as_str);
        self.contains.iter().all(|text| entry.line.contains(text.as_str()))
            && self.patterns.iter().all(|pattern| pattern.is_match(&entry.line))
            && self.filters.iter().all(|(name, operator, v)| fits(operator, v, value(name)))
    }
}

/// <https://grafana.com/docs/loki/latest/reference/loki-http-api/#query-logs-within-a-range-of-time>
pub(super) async fn query_range(State(shared): State<Arc<Shared>>, uri: Uri) -> Response {
    let url = reqwest::Url::parse(&format!("http://loki{uri}")).unwrap();
    let asked: HashMap<_, _> = url.query_pairs().collect();
    let number = |name: &str| asked.get(name).and_then(|text| text.parse::<i64>().ok());
    let text = asked.get("query").map_or("", |q| q);
    let Some(query) = Query::parse(text) else {
        return (StatusCode::BAD_REQUEST, format!("parse error: {text}")).into_response();
    };
    let end = number("end").unwrap_or_else(now);
    let start = number("start").unwrap_or(end - 3600 * SECOND);
    let limit = number("limit").map_or(100, |limit| limit as usize);
    if limit > shared.limits.max_entries_per_query {
        let text = format!(
            "max entries limit per query exceeded, limit > max_entries_limit_per_query ({limit} > {})",
            shared.limits.max_entries_per_query
        );
        return (StatusCode::BAD_REQUEST, text).into_response();
    }
    let mut found: Vec<(i64, Labels, String)> = Vec::new();
    for (labels, stream) in &shared.memory.lock().unwrap().streams {
        if !query.takes(labels) {
            continue;
        }
        for entry in stream.entries.range(start..end).flat_map(|(_, entries)| entries) {
            let mut labels = labels.clone();
            labels.extend(entry.metadata.iter().map(|p| (p.name.clone(), p.value.clone())));
            if query.finds(entry, &labels) {
                found.push((entry.at(), labels, entry.line.clone()));
            }
        }
    }
    found.sort_by_key(|(at, ..)| *at);
    let forward = asked.get("direction").is_some_and(|d| d == "forward");
    if !forward {
        found.reverse();
    }
    found.truncate(limit);
    let bytes: usize = found.iter().map(|(_, _, line)| line.len()).sum();
    if bytes > MAX_ANSWER {
        let text = format!(
            "rpc error: code = ResourceExhausted desc = grpc: received message larger than max ({bytes} vs. {MAX_ANSWER})"
        );
        return (StatusCode::INTERNAL_SERVER_ERROR, text).into_response();
    }
    let mut streams: BTreeMap<Labels, Vec<Value>> = BTreeMap::new();
    for (at, labels, line) in found {
        streams.entry(labels).or_default().push(json!([at.to_string(), line]));
    }
    let result: Vec<Value> =
        streams.iter().map(|(l, v)| json!({ "stream": l, "values": v })).collect();
    let answer =
        json!({ "status": "success", "data": { "resultType": "streams", "result": result } });
    ([("content-type", "application/json")], answer.to_string()).into_response()
}
