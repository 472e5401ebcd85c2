//! What several checks say is said once: the right to use a group that reads several topics; a certificate that has expired, and is why a
//! server can't be used; and a long way out.

use super::{Check, Level};

/// What is longer is not read twice.
const LONG: usize = 60;

pub fn tidied(checks: Vec<Check>) -> Vec<Check> {
    repeated(of_certificates(same(checks)))
}

/// Of checks that say the same of the same thing, one.
fn same(checks: Vec<Check>) -> Vec<Check> {
    let mut all: Vec<Check> = Vec::with_capacity(checks.len());
    for check in checks {
        if !all.contains(&check) {
            all.push(check);
        }
    }
    all
}

/// Who can't be used since its certificate has expired says so, with the day, and the certificate says no more.
fn of_certificates(mut checks: Vec<Check>) -> Vec<Check> {
    let (bad, mut rest): (Vec<Check>, Vec<Check>) = checks
        .drain(..)
        .partition(|c| c.level == Level::Wrong && c.what.starts_with("certificate of "));
    for certificate in bad {
        let whose = certificate.what.trim_start_matches("certificate of ");
        let about = |check: &&mut Check| {
            let says = check.says.to_ascii_lowercase();
            let is = ["certificate", "ssl"].iter().any(|word| says.contains(word));
            let its = check.what == whose || check.what == format!("{whose}, query");
            its && check.level != Level::Ok && is
        };
        match rest.iter_mut().find(about) {
            Some(check) => {
                check.address = certificate.address;
                check.says = certificate.says;
                check.way_out = certificate.way_out;
            }
            None => rest.push(certificate),
        }
    }
    rest
}

/// The second time, a long way out is that of the first, of whatever trouble: a command that is run once mends both.
fn repeated(mut checks: Vec<Check>) -> Vec<Check> {
    for i in 1..checks.len() {
        let (before, rest) = checks.split_at_mut(i);
        let check = &mut rest[0];
        let long = check.way_out.len() > LONG;
        let same = before.iter().find(|c| long && c.way_out == check.way_out);
        if let Some(first) = same {
            check.way_out = format!("the same as for {}", first.what);
        }
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expired_certificate_is_told_once_and_nothing_else_is_blamed() {
        let expired = || {
            Check::new("certificate of kafka", "k:9093")
                .wrong("the certificate expired on 2021-01-01", "renew it where the server has it")
        };
        let failed = Check::new("kafka", "k:9093")
            .wrong("SSL handshake failed: certificate verify failed", "see security.protocol");
        let told = tidied(vec![failed, expired(), expired()]);
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!((&*told[0].what, &*told[0].says), ("kafka", &*expired().says));
        assert_eq!(told[0].way_out, "renew it where the server has it");
        // What is about something else stays, and so does a certificate of who can be used.
        let refused = Check::new("kafka", "k:9093").wrong("Connection refused", "start it");
        assert_eq!(tidied(vec![refused.clone(), expired()]), [refused, expired()]);
        let fine = Check::new("kafka", "k:9093").ok("1 broker answering");
        assert_eq!(tidied(vec![fine.clone(), expired()]), [fine, expired()]);
    }

    #[test]
    fn a_long_way_out_is_told_once() {
        let long = "a command with many arguments ".repeat(3);
        let check = |what: &str, way_out: &str| Check::new(what, "k").wrong("no right", way_out);
        let told = tidied(vec![
            check("topic a", &long),
            check("topic b", "docket setup x"),
            check("topic c", &long),
            check("topic d", "docket setup x"),
        ]);
        let ways: Vec<&str> = told.iter().map(|check| check.way_out.as_str()).collect();
        assert_eq!(ways, [&*long, "docket setup x", "the same as for topic a", "docket setup x"]);
        let other = Check::new("rights of e", "k").wrong("no right to use the group", &*long);
        let told = tidied(vec![check("topic a", &long), other.clone(), other]);
        assert_eq!((told.len(), &*told[1].way_out), (2, "the same as for topic a"), "{told:?}");
    }
}
