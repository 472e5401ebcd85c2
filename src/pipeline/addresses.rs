//! What no address, time or size can be, beyond what the schema says.

use super::file::File;
use crate::notify::config::Notify;

/// A port that somebody can listen on.
pub fn port(port: u16) -> Result<(), String> {
    if port == 0 { Err("nobody listens on port 0".into()) } else { Ok(()) }
}

/// What is said of a port that none is.
pub fn beyond(port: &str) -> String {
    format!("port {port} is out of range: 1 to 65535")
}

/// What librdkafka takes before an address.
const PROTOCOLS: [&str; 4] = ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"];

/// Kafka's brokers, with or without a protocol and a port, as librdkafka takes them.
fn brokers(list: &str) -> Result<(), String> {
    for broker in list.split(',') {
        let broker = broker.trim();
        let (protocol, place) = broker.split_once("://").unwrap_or(("", broker));
        if !protocol.is_empty() && !PROTOCOLS.iter().any(|p| p.eq_ignore_ascii_case(protocol)) {
            return Err(format!(
                "Kafka does not speak {protocol}://; write host:port, or {}:// before it",
                PROTOCOLS.join("://, ")
            ));
        }
        if place.contains('/') {
            return Err("an address in it has a path; write host:port,host:port".into());
        }
        // The colons of an IPv6 address stand in brackets.
        let (host, said) = match place.rsplit_once(':') {
            Some((host, said)) if !said.contains(']') => (host, Some(said)),
            _ => (place, None),
        };
        if host.is_empty() {
            return Err("an address in it has no host; write host:port,host:port".into());
        }
        if host.contains([' ', '@']) {
            return Err("an address in it is no host:port".into());
        }
        match said.map(|said| (said, said.parse::<u16>())) {
            None => {}
            Some((_, Ok(number))) => port(number)?,
            Some((said, Err(_)))
                if !said.is_empty() && said.bytes().all(|b| b.is_ascii_digit()) =>
            {
                return Err(beyond(said));
            }
            Some(_) => return Err("an address in it has no port behind its colon".into()),
        }
    }
    Ok(())
}

/// The brokers that stand in a list without a port, of which librdkafka takes 9092.
pub fn portless(list: &str) -> Vec<&str> {
    let brokers = list.split(',').map(str::trim).filter(|broker| !broker.is_empty());
    let place = |broker: &str| broker.split_once("://").map_or(broker.len(), |(_, at)| at.len());
    let bare = |broker: &&str| {
        let place = &broker[broker.len() - place(broker)..];
        place.rsplit_once(':').is_none_or(|(_, port)| port.contains(']'))
    };
    brokers.filter(bare).collect()
}

/// Tells `problem` what can't be, and where.
pub fn check(file: &File, problem: &mut dyn FnMut(&[&str], String)) {
    // A reference that is not resolved is empty, and was told.
    if !file.kafka.brokers.is_empty()
        && let Err(why) = brokers(&file.kafka.brokers)
    {
        problem(&["kafka", "brokers"], why);
    }
    nothings(file, &mut |path, is_nothing| {
        if is_nothing {
            problem(path, "it must be greater than zero".into());
        }
    });
    for (name, notify) in file.spikes.iter().flat_map(|spikes| &spikes.notify) {
        let url = match notify {
            Notify::Alertmanager(_) => continue,
            Notify::Webhook(webhook) => webhook.url.expose(),
            Notify::Slack(slack) => slack.url.expose(),
        };
        let fits = reqwest::Url::parse(url)
            .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.port() != Some(0));
        if !url.is_empty() && !fits {
            // It may be a secret, and is not shown.
            let message = "what it resolves to is no URL such as https://hooks.example/T0";
            problem(&["spikes", "notify", name, "url"], message.into());
        }
    }
}

/// Times and sizes that can't be zero.
fn nothings(file: &File, nothing: &mut dyn FnMut(&[&str], bool)) {
    let intake = &file.intake;
    nothing(&["intake", "transaction_interval"], intake.transaction_interval.0.is_zero());
    nothing(&["intake", "transaction_bytes"], intake.transaction_bytes.0 == 0);
    nothing(&["intake", "prefetch"], intake.prefetch.0 == 0);
    nothing(&["limits", "decision_bytes"], file.limits.decision_bytes.0 == 0);
    nothing(&["limits", "record_bytes"], file.limits.record_bytes.0 == 0);
    nothing(&["docket", "retention"], file.docket.retention.0.is_zero());
    nothing(&["docket", "max_message"], file.docket.max_message.0 == 0);
    nothing(&["watchdog", "stalled_after"], file.watchdog.stalled_after.0.is_zero());
    for (name, push) in &file.telemetry.push {
        nothing(&["telemetry", "push", name, "interval"], push.interval().0.is_zero());
    }
    for (name, sink) in &file.sinks {
        let is_nothing = sink.delivery().max_age.is_some_and(|age| age.0.is_zero());
        nothing(&["sinks", name, "delivery", "max_age"], is_nothing);
    }
    for (name, notify) in file.spikes.iter().flat_map(|spikes| &spikes.notify) {
        let say = match notify {
            Notify::Alertmanager(_) => continue,
            Notify::Webhook(webhook) => &webhook.say,
            Notify::Slack(slack) => &slack.say,
        };
        nothing(&["spikes", "notify", name, "say", "repeat"], say.repeat.0.is_zero());
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::secrets::Real;
    use crate::pipeline::parse;

    #[test]
    fn brokers_are_hosts_with_ports() {
        for good in ["k", "k:9092", "a:1,b:65535", "SSL://a:9093, b", "[::1]:9092", "[::1]"] {
            assert_eq!(brokers(good), Ok(()), "{good}");
        }
        for bad in ["k:99999", "k:0", ":9092", "a:1,,b:2", "k:", "k:port", "http://k/x", ""] {
            assert!(brokers(bad).is_err(), "{bad}");
        }
        for bad in ["http://k:9092", "a:1,https://k:9092"] {
            assert!(brokers(bad).unwrap_err().contains("SASL_SSL://"), "{bad}");
        }
        assert_eq!(portless("a, SSL://b:9093,SSL://c,[::1],[::1]:9092"), ["a", "SSL://c", "[::1]"]);
        assert!(brokers("k:9092/x").unwrap_err().contains("has a path"));
    }

    #[test]
    fn what_can_not_be_is_told_with_its_line() {
        let text = "name: opa
kafka: {brokers: 'k:99999'}
sources: [{topic: ''}]
admin: {listen: '127.0.0.1:99999'}
intake: {transaction_interval: 0s}
docket: {retention: 0d, max_message: 0}
watchdog: {stalled_after: -1s}
sinks:
  a: {type: loki, url: 'http://l:99999'}
  b: {type: loki, url: 'http://:3100'}
  c: {type: loki, url: 'http://l:0'}
  d: {type: loki, url: ''}
  e: {type: file, path: ''}
  f: {type: elasticsearch, url: 'http://e:9200', delivery: {max_age: 0s}}
  g: {type: loki, url: 'http://l', tls: {ca_file: ''}}
telemetry: {push: {p: {type: remote_write, url: 'http://x', interval: 0s}}}
verdict_policy: {policies: [''], rule: a/b}
";
        let Err(error) = parse(Path::new("p.yaml"), text, &Real) else { panic!("it is taken") };
        let mut lines: Vec<usize> = error.places().map(|(line, ..)| line).collect();
        lines.dedup();
        assert_eq!(lines, [2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13, 14, 15, 16, 17], "{error}");
        let said = error.to_string();
        for words in [
            "p.yaml:2:18: port 99999 is out of range",
            "invalid port number",
            "nobody listens on port 0",
            "empty text, where some is needed",
        ] {
            assert!(said.contains(words), "{words}:\n{said}");
        }
        for listen in ["127.0.0.1:0", "[::]:9464"] {
            let text = format!(
                "name: opa\nkafka: {{brokers: k}}\nsources: [{{topic: t}}]\nadmin: {{listen: '{listen}'}}\n"
            );
            assert!(parse(Path::new("p.yaml"), &text, &Real).is_ok(), "{listen}");
        }
    }
}
