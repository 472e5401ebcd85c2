//! Addresses that look like those of another server than was asked for: by their port, or by the name of the host.

/// A server, by what it is called, by names that hosts of its have, and its usual ports. The first port tells which is asked for.
struct Server {
    called: &'static str,
    names: &'static [&'static str],
    ports: &'static [u16],
}

const SERVERS: [Server; 7] = [
    // Any backend may take traces.
    Server { called: "an OTLP endpoint", names: &[], ports: &[4317, 4318] },
    Server {
        called: "Jaeger's or Tempo's query",
        names: &["jaeger", "tempo"],
        ports: &[16686, 3200, 80, 443],
    },
    Server { called: "Loki", names: &["loki"], ports: &[3100] },
    Server { called: "VictoriaLogs", names: &["victorialogs", "vlogs"], ports: &[9428] },
    Server {
        called: "Elasticsearch or OpenSearch",
        names: &["elasticsearch", "opensearch"],
        ports: &[9200],
    },
    Server { called: "Prometheus", names: &["prometheus"], ports: &[9090] },
    Server { called: "Kafka", names: &["kafka"], ports: &[9092] },
];

/// What is odd about the URL of the server whose usual port this is. It may be right all the same.
pub(super) fn odd(url: &str, port: u16) -> Option<String> {
    let url = reqwest::Url::parse(url).ok()?;
    let wanted = SERVERS.iter().find(|server| server.ports[0] == port)?;
    let Server { called, names, ports } = wanted;
    let others = || SERVERS.iter().filter(|server| server.ports[0] != port);
    if let Some(at) = url.port().filter(|at| !ports.contains(at))
        && let Some(other) = others().find(|other| other.ports.contains(&at))
    {
        let other = other.called;
        return Some(format!("{at} is the usual port of {other}; that of {called} is {port}"));
    }
    let host = url.host_str()?.split('.').next()?.to_ascii_lowercase();
    let sounds = |names: &[&str]| names.iter().any(|name| host.contains(name));
    let other =
        others().find(|other| sounds(other.names) && !names.is_empty() && !sounds(names))?;
    Some(format!("{host} sounds like {}, and not like {called}", other.called))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_another_server_is_odd_and_any_other_is_not() {
        for (url, port, said) in [
            (
                "http://jaeger:3100",
                3100,
                "jaeger sounds like Jaeger's or Tempo's query, and not like Loki",
            ),
            (
                "http://localhost:4317",
                16686,
                "4317 is the usual port of an OTLP endpoint; that of Jaeger's or Tempo's query is 16686",
            ),
            (
                "http://localhost:9200",
                9090,
                "9200 is the usual port of Elasticsearch or OpenSearch; ",
            ),
            ("http://kafka.example:9200", 9200, "kafka sounds like Kafka, "),
        ] {
            let odd = odd(url, port);
            assert!(odd.as_deref().is_some_and(|odd| odd.starts_with(said)), "{url}: {odd:?}");
        }
        for (url, port) in [
            ("http://loki:3100", 3100),
            ("https://logs.example/loki", 3100),
            ("http://loki.tempo.svc:8080", 3100),
            ("http://localhost:3200", 16686),
            ("http://jaeger:4317", 4317),
            ("http://tempo:4318", 4317),
            ("http://mimir:8080/prometheus", 9090),
            ("http://localhost:19428", 9428),
        ] {
            assert_eq!(odd(url, port), None, "{url}");
        }
    }
}
