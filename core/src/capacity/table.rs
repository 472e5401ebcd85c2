//! The review's hours as CSV (RFC 4180), for a spreadsheet.

use super::covered::Covered;
use super::numbers::{HOUR, SECOND};
use super::{Review, enough};
use crate::decision::time;

/// Rows of `dimension` all, service, policy, opa; `name` is the policy's or the OPA's. `seconds` of the hour are covered by the review; what
/// is by the second is empty where that is less than a minute.
pub fn csv(review: &Review) -> String {
    let mut out = String::from(
        "hour,dimension,service,name,decisions,denied,failed,decisions_per_second,peak_second,peak_minute_per_second,evaluation_seconds,busy_cores,seconds\r\n",
    );
    let covered = Covered::new(review.from, review.to);
    for (dimension, service, name, hours) in &review.hours.0 {
        for (hour, of) in hours {
            let busy = of.busy as f64 / SECOND as f64;
            let seconds = covered.within(*hour);
            let rate =
                |n: f64| if seconds < enough::RATE { String::new() } else { format!("{n:.4}") };
            let row = [
                format!("{}Z", &time::format(hour * HOUR)[..19]),
                (*dimension).to_owned(),
                field(service),
                field(name),
                of.decisions.to_string(),
                of.denied.to_string(),
                of.failed.to_string(),
                rate(of.decisions as f64 / seconds as f64),
                of.second.0.to_string(),
                rate(of.minute.per_second()),
                format!("{busy:.6}"),
                if seconds < enough::RATE {
                    String::new()
                } else {
                    format!("{:.6}", busy / seconds as f64)
                },
                seconds.to_string(),
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
