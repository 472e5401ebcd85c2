//! What is told of decisions as one page of HTML. It loads nothing, and runs nothing.

use std::fmt::Write;

use crate::decision::record::Record;

/// A decision, what was found about it, and why it was made: texts that `story` wrote.
pub struct Told<'a> {
    pub record: Record<'a>,
    pub story: String,
    pub findings: Vec<String>,
    pub explanation: String,
}

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:52rem;margin:2rem auto;padding:0 1rem;color:#1c1e21;background:#fff}\
h1{font-size:1.2rem}h2{font-size:1rem;margin:2rem 0 .5rem;overflow-wrap:anywhere}\
h2 b{padding:.1rem .5rem;border-radius:.25rem;background:#e4e6eb}h2 b.deny,h2 b.error{background:#b3261e;color:#fff}h2 b.allow{background:#1e6b34;color:#fff}\
p.found{margin:.5rem 0;padding:.5rem .75rem;border-left:.25rem solid #b3261e;background:#fbe9e7;overflow-wrap:anywhere}\
pre{font:13px/1.45 ui-monospace,monospace;padding:.75rem;background:#f4f5f7;overflow-x:auto}\
@media(prefers-color-scheme:dark){body{color:#e4e6eb;background:#18191a}h2 b{background:#3a3b3c}p.found{background:#3b1f1d}pre{background:#242526}}";

/// `id` is what was asked for, `more` says how many decisions are not shown, `notes` what else there is to say: behind the first line of each
/// stand commands, if any.
pub fn page(id: &str, told: &[Told<'_>], more: u64, notes: &[String]) -> String {
    let mut out = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">\
         <meta http-equiv=Content-Security-Policy content=\"default-src 'none'; style-src 'unsafe-inline'\">\
         <title>docket why {id}</title><style>{STYLE}</style><h1>docket why {id}</h1>\n",
        id = escaped(id)
    );
    for one in told {
        let verdict = one.record.verdict.as_str();
        let _ = writeln!(
            out,
            "<h2><b class={verdict}>{}</b> {}</h2>",
            verdict.to_uppercase(),
            escaped(&one.record.policy)
        );
        for sentence in &one.findings {
            let _ = writeln!(out, "<p class=found>Found: {}</p>", escaped(sentence));
        }
        for text in [&one.story, &one.explanation] {
            if !text.is_empty() {
                let _ = writeln!(out, "<pre>{}</pre>", escaped(text.trim_matches('\n')));
            }
        }
    }
    for note in notes {
        let (sentence, commands) = note.split_once('\n').unwrap_or((note, ""));
        let _ = writeln!(out, "<p>{}</p>", escaped(sentence));
        if !commands.is_empty() {
            let _ = writeln!(out, "<pre>{}</pre>", escaped(commands));
        }
    }
    if more > 0 {
        let _ = writeln!(out, "<p>{more} more; ask for one by its decision ID.</p>");
    }
    out.push_str("</html>\n");
    out
}

/// Control characters and those that turn the direction of text round are what a decision's author may have put there.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' => out.push('\n'),
            c if c.is_control() => out.push('\u{fffd}'),
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                out.push('\u{fffd}');
            }
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::event::Event;
    use crate::decision::record::{Rules, write};
    use crate::explain::story;

    #[test]
    fn nothing_of_a_decision_is_markup() {
        let evil = "<script>alert('x')</script><img src=//evil.example/>\\u202e\\\"&amp;";
        let decision = format!(
            r#"{{"decision_id":"{evil}","timestamp":"2026-11-24T12:48:50Z","path":"{evil}","labels":{{"app":"{evil}"}},"input":{{"user":"{evil}"}},"result":false}}"#
        );
        let mut bytes = Vec::new();
        let event = Event::parse(decision.as_bytes()).unwrap();
        write(&event, &[], None, &Rules::default(), &mut bytes);
        let record = Record::parse(&bytes).unwrap();
        let told = Told {
            story: story::decision(&record),
            record,
            findings: vec!["<b>found</b>".into()],
            explanation: "a < b".into(),
        };
        let page = page("<i>'\"", &[told], 2, &["<b>again</b>\n  docket <u>".into()]);
        let tags: Vec<&str> =
            page.split('<').skip(1).map(|tag| tag.split(['>', ' ']).next().unwrap()).collect();
        for tag in &tags {
            let known = [
                "!doctype", "html", "/html", "meta", "title", "/title", "style", "/style", "h1",
                "/h1", "h2", "/h2", "b", "/b", "p", "/p", "pre", "/pre",
            ];
            assert!(known.contains(tag), "{tag}: {page}");
        }
        assert_eq!(tags.iter().filter(|tag| **tag == "b").count(), 1);
        assert!(!page.contains('\u{202e}'), "{page}");
        assert!(page.contains("<b class=deny>DENY</b>") && page.contains("a &lt; b"), "{page}");
        assert!(
            page.contains("<p>&lt;b&gt;again&lt;/b&gt;</p>\n<pre>  docket &lt;u&gt;</pre>"),
            "{page}"
        );
        assert!(page.contains("2 more") && page.contains("&lt;b&gt;found"), "{page}");
    }
}
