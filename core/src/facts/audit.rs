//! Kubernetes audit events (audit.k8s.io/v1 `Event` and `EventList`), of a webhook or a log file.

use std::borrow::Cow;

use super::{BadFact, Fact, Kind, Marks, Piece};
use crate::decision::json::{self, Member};
use crate::decision::time;

pub fn read(text: &str, members: &[Member<'_>], place: &str, take: &mut dyn FnMut(Piece<'_>)) {
    if let Some(items) = members.iter().find(|m| m.name == "items") {
        for (i, item) in json::elements(items.value).enumerate() {
            event(item, &format!("{place}, items[{i}]"), take);
        }
        return;
    }
    event(text, place, take);
}

fn event(text: &str, place: &str, take: &mut dyn FnMut(Piece<'_>)) {
    match fact(text) {
        Ok(Some(fact)) => take(Piece::Fact(fact)),
        Ok(None) => take(Piece::Ignored),
        Err((name, problem)) => {
            take(Piece::Bad(BadFact::new(format!("{place}, {name}"), problem)));
        }
    }
}

/// A request that is over; of earlier stages nothing.
fn fact(event: &str) -> Result<Option<Fact<'_>>, (&'static str, String)> {
    let get = |name: &str| json::get(event, name);
    let text = |name: &str| get(name).and_then(json::as_str).unwrap_or_default();
    match &*text("stage") {
        "ResponseComplete" | "Panic" => {}
        "RequestReceived" | "ResponseStarted" => return Ok(None),
        other => return Err(("stage", format!("unknown: {other:?}"))),
    }
    let at = |name: &'static str| {
        time::parse(&text(name)).ok_or_else(|| (name, format!("not a time: {:?}", text(name))))
    };
    let end = at("stageTimestamp")?;
    let start = at("requestReceivedTimestamp")?;
    let mut fact = Fact::new(Kind::Audit, start, end);
    fact.request_id = text("auditID");
    if fact.request_id.is_empty() {
        return Err(("auditID", "it is missing".into()));
    }
    fact.service = "kube-apiserver".into();
    fact.method = text("verb");
    let who = get("impersonatedUser").filter(|u| u.starts_with('{')).or_else(|| get("user"));
    fact.user =
        who.and_then(|u| json::get(u, "username")).and_then(json::as_str).unwrap_or_default();
    fact.path = match get("objectRef").filter(|raw| raw.starts_with('{')) {
        Some(object) => Cow::Owned(object_path(object)),
        None => {
            let uri = text("requestURI");
            Cow::Owned(uri.split('?').next().unwrap_or_default().to_owned())
        }
    };
    if let Some(status) = get("responseStatus") {
        fact.status.http = json::get(status, "code")
            .and_then(json::as_u64)
            .and_then(|code| u16::try_from(code).ok())
            .filter(|code| *code > 0);
        if let Some(reason) = json::get(status, "reason").and_then(json::as_str) {
            fact.details = reason;
        }
    }
    for annotation in get("annotations").into_iter().flat_map(json::members) {
        annotated(&mut fact, &annotation);
    }
    Ok(Some(fact))
}

fn annotated<'a>(fact: &mut Fact<'a>, annotation: &Member<'a>) {
    let name = annotation.key();
    let value = json::as_str(annotation.value).unwrap_or_default();
    if name.starts_with("failed-open.") {
        fact.marks = fact.marks.with(Marks::FAILED_OPEN);
        fact.details = value;
        return;
    }
    // The API server writes a webhook's own annotations below the webhook's name.
    match name.rsplit_once('/').map(|(_, own)| own) {
        Some("uid") => fact.uid = value,
        Some("decision_id" | "decision-id") => fact.decision_id = value,
        Some("decision") if name.starts_with("authorization.k8s.io/") && value == "forbid" => {
            fact.details = "authorization.k8s.io forbids".into();
        }
        Some("dry-run" | "dry_run") if value == "true" => {
            fact.marks = fact.marks.with(Marks::DRY_RUN);
        }
        _ => {}
    }
}

/// `pods/shop/web-1`, `pods/shop/web-1/status`, `nodes//n1`.
fn object_path(object: &str) -> String {
    let text = |name: &str| json::get(object, name).and_then(json::as_str).unwrap_or_default();
    let mut path = format!("{}/{}/{}", text("resource"), text("namespace"), text("name"));
    if !text("subresource").is_empty() {
        path.push('/');
        path.push_str(&text("subresource"));
    }
    path
}
