//! Who asked for what, and for which tenant: from the places that the pipeline file names, or where OPA's callers, Envoy
//! and Kubernetes usually have them. One walk over the input finds all of it.

use std::borrow::Cow;

use super::event::Event;
use super::json::{self, Paths, Pointer};

/// A decision's subject, action, resource and tenant, in this order.
pub type Asked<'a> = [Option<Cow<'a, str>>; 4];
pub const NAMES: [&str; 4] = ["subject", "action", "resource", "tenant"];

/// Longer ones are cut.
const MAX_BYTES: usize = 256;

const SUBJECT: &[&str] = &[
    "/input/subject",
    "/input/subject/id",
    "/input/subject/name",
    "/input/user",
    "/input/user/id",
    "/input/user/name",
    "/input/user/username",
    "/input/principal",
    "/input/principal/id",
    "/input/client_id",
    "/input/attributes/source/principal",
    "/input/request/userInfo/username",
];
const ACTION: &[&str] = &[
    "/input/action",
    "/input/action/name",
    "/input/action/operation",
    "/input/method",
    "/input/attributes/request/http/method",
    "/input/request/method",
    "/input/request/operation",
    "/input/operation",
];
const RESOURCE: &[&str] = &[
    "/input/resource",
    "/input/resource/id",
    "/input/resource/name",
    "/input/object",
    "/input/path",
    "/input/attributes/request/http/path",
    "/input/request/path",
    "/input/request/resource/resource",
];
const TENANT: &[&str] = &[
    "/input/tenant",
    "/input/tenant/id",
    "/input/tenant/name",
    "/input/tenant_id",
    "/input/tenantId",
    "/input/user/tenant",
    "/input/user/tenant_id",
    "/input/subject/tenant",
    "/input/org",
    "/input/org/id",
    "/input/org_id",
    "/input/organization",
    "/input/organization/id",
    "/input/attributes/request/http/headers/x-tenant-id",
];

/// Parts of a decision that pointers may lead into.
pub const PARTS: [&str; 5] = ["input", "labels", "request_context", "result", "requested_by"];

/// The pipeline file's `request:` section, made ready.
#[derive(Debug, Clone)]
pub struct Rules {
    paths: Paths,
    /// By pointer: of what, and how many are tried before.
    of: Vec<(usize, usize)>,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules::new(Default::default())
    }
}

impl Rules {
    /// By `NAMES` the pointers, the first one first; the usual ones for `None`.
    pub fn new(pointers: [Option<Vec<Pointer>>; 4]) -> Rules {
        let (mut all, mut of) = (Vec::new(), Vec::new());
        for (which, (given, usual)) in
            pointers.into_iter().zip([SUBJECT, ACTION, RESOURCE, TENANT]).enumerate()
        {
            let pointers =
                given.unwrap_or_else(|| usual.iter().filter_map(|p| Pointer::parse(p)).collect());
            of.extend((0..pointers.len()).map(|rank| (which, rank)));
            all.extend(pointers);
        }
        Rules { paths: all.into_iter().collect(), of }
    }

    pub fn find<'a>(&self, event: &Event<'a>) -> Asked<'a> {
        let mut best: [Option<(usize, Cow<'a, str>)>; 4] = Default::default();
        let mut tell = |number: usize, raw| {
            let (which, rank) = self.of[number];
            if best[which].as_ref().is_none_or(|(best, _)| rank < *best)
                && let Some(text) = text(raw)
            {
                best[which] = Some((rank, text));
            }
        };
        for path in self.paths.then() {
            let part = match path.name() {
                "input" => event.input,
                "labels" => event.labels,
                "request_context" => event.request_context,
                "result" => event.result,
                "requested_by" => event.requested_by,
                _ => None,
            };
            if let Some(raw) = part {
                path.walk(raw, &mut tell);
            }
        }
        let [subject, action, resource, tenant] = best.map(|found| found.map(|(_, text)| text));
        // What follows the question mark may be anything, a token too.
        let path = |text: Cow<'a, str>| match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.split('?').next().unwrap_or_default()),
            Cow::Owned(text) => Cow::Owned(text.split('?').next().unwrap_or_default().to_owned()),
        };
        [subject, action, resource.map(path), tenant]
    }
}

/// A value as a name: text, a number, or a path in pieces. Objects and nothing are none.
fn text(raw: &str) -> Option<Cow<'_, str>> {
    let text = match raw.as_bytes().first()? {
        b'"' => json::as_str(raw)?,
        b'{' | b'n' => return None,
        b'[' => {
            let mut path = String::new();
            for element in json::elements(raw) {
                path.push('/');
                match element.as_bytes().first() {
                    Some(b'"') => path.push_str(&json::as_str(element)?),
                    Some(b'{' | b'[' | b'n') | None => return None,
                    Some(_) => path.push_str(element),
                }
                if path.len() > MAX_BYTES {
                    break;
                }
            }
            path.into()
        }
        _ => raw.into(),
    };
    let mut cut = text.len().min(MAX_BYTES);
    while !text.is_char_boundary(cut) {
        cut -= 1;
    }
    match text {
        text if text.is_empty() => None,
        Cow::Borrowed(text) => Some(Cow::Borrowed(&text[..cut])),
        Cow::Owned(mut text) => {
            text.truncate(cut);
            Some(Cow::Owned(text))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(rules: &Rules, rest: &str) -> String {
        let doc = format!(r#"{{"decision_id":"d","timestamp":"2026-11-24T12:48:50Z",{rest}}}"#);
        let event = Event::parse(doc.as_bytes()).unwrap();
        rules.find(&event).map(|found| found.map_or("-".to_owned(), Cow::into_owned)).join(" ")
    }

    #[test]
    fn who_asked_for_what_is_found_where_callers_have_it() {
        let usual = Rules::default();
        let input = |input: &str| asked(&usual, &format!("\"input\":{input}"));
        assert_eq!(
            input(r#"{"user":"alice","method":"GET","path":["v1","orders",7]}"#),
            "alice GET /v1/orders/7 -"
        );
        assert_eq!(
            input(r#"{"user":{"id":"u-1","name":"x"},"action":"read","resource":{"id":"doc"}}"#),
            "u-1 read doc -"
        );
        assert_eq!(
            input(
                r#"{"attributes":{"source":{"principal":"spiffe://a"},"request":{"http":{"method":"PUT","path":"/x?token=s"}}}}"#
            ),
            "spiffe://a PUT /x -"
        );
        assert_eq!(
            input(
                r#"{"request":{"operation":"CREATE","resource":{"resource":"pods"},"userInfo":{"username":"dev"}}}"#
            ),
            "dev CREATE pods -"
        );
        assert_eq!(input(r#"{"user":"","method":null,"path":[{}]}"#), "- - - -");
        assert_eq!(input(r#""text""#), "- - - -");
        assert_eq!(input(r#"{"us\u0065r":"a\u0062"}"#), "ab - - -");
        assert_eq!(input(r#"{"org":"o","user":{"id":7},"tenant":{"id":"acme"}}"#), "7 - - acme");
        assert_eq!(input(r#"{"user":{"id":7,"tenant_id":12}}"#), "7 - - 12");
        let own = Rules::new([
            Some(vec![Pointer::parse("/requested_by").unwrap()]),
            Some(Vec::new()),
            Some(vec![Pointer::parse("/input/a/1").unwrap()]),
            None,
        ]);
        assert_eq!(
            asked(&own, r#""requested_by":"10.0.0.1:1","input":{"a":[1,2],"method":"GET"}"#),
            "10.0.0.1:1 - 2 -"
        );
        assert_eq!(
            asked(&usual, &format!("\"input\":{{\"user\":\"{}\"}}", "ü".repeat(300)))
                .chars()
                .count(),
            MAX_BYTES / 2 + 6
        );
    }
}
