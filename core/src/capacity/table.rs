//! The review's hours as CSV (RFC 4180), for a spreadsheet.

use super::Review;
use super::count::{HOUR, SECOND};
use crate::decision::time;

/// Rows of `dimension` all, service, policy, opa; `name` is the policy's or the OPA's.
pub fn csv(review: &Review) -> String {
    let mut out = String::from(
        "hour,dimension,service,name,decisions,denied,failed,decisions_per_second,peak_second,peak_minute_per_second,evaluation_seconds,busy_cores\r\n",
    );
    for (dimension, service, name, hours) in &review.hours.0 {
        for (hour, of) in hours {
            let busy = of.busy as f64 / SECOND as f64;
            let row = [
                format!("{}Z", &time::format(hour * HOUR)[..19]),
                (*dimension).to_owned(),
                field(service),
                field(name),
                of.decisions.to_string(),
                of.denied.to_string(),
                of.failed.to_string(),
                format!("{:.4}", of.decisions as f64 / 3600.0),
                of.second.0.to_string(),
                format!("{:.4}", f64::from(of.minute.0) / 60.0),
                format!("{busy:.6}"),
                format!("{:.6}", busy / 3600.0),
            ];
            out.push_str(&row.join(","));
            out.push_str("\r\n");
        }
    }
    out
}

/// What a spreadsheet would take for a formula is kept from it.
fn field(text: &str) -> String {
    let text = if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        format!("'{text}")
    } else {
        text.to_owned()
    };
    if text.contains(['"', ',', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn names_cannot_break_a_row() {
        assert_eq!(super::field("a,b\"c"), "\"a,b\"\"c\"");
        assert_eq!(super::field("=cmd()"), "'=cmd()");
        assert_eq!(super::field("http/authz/allow"), "http/authz/allow");
    }
}
