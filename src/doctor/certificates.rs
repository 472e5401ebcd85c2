//! Certificates: until when those are valid that servers show, and those in files that the pipeline file names.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::DigitallySignedStruct;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio::net::TcpStream;

use super::{Check, Look, Seen};
use crate::decision::time::{self, Nanos};
use crate::http::config::Tls;
use crate::log::config::Property;
use crate::notify::config::Notify;
use crate::pipeline::Pipeline;
use crate::sink::config::SinkConfig;
use crate::words::counted;

const SECOND: Nanos = 1_000_000_000;
/// What ends sooner is worth a word.
const SOON: Nanos = 21 * 86_400 * SECOND;

/// From when until when, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Validity {
    from: Nanos,
    to: Nanos,
}

/// Every server that the pipeline speaks TLS with.
pub fn servers(pipeline: &Pipeline, opa: Option<&str>) -> Vec<Look> {
    let mut at: Vec<(String, String)> = Vec::new();
    let mut url = |what: String, url: &str| {
        let Ok(parsed) = reqwest::Url::parse(url) else { return };
        if let ("https", Some(host), Some(port)) =
            (parsed.scheme(), parsed.host_str(), parsed.port_or_known_default())
        {
            at.push((what, format!("{host}:{port}")));
        }
    };
    for (name, sink) in &pipeline.file.sinks {
        let address = match sink {
            SinkConfig::Otlp(c) => Some(&c.endpoint),
            SinkConfig::Loki(c) => Some(&c.url),
            SinkConfig::Elasticsearch(c) => Some(&c.url),
            SinkConfig::Cloudwatch(c) => c.endpoint.as_ref(),
            SinkConfig::Metrics(c) => c.query.as_ref(),
            SinkConfig::File(_) => None,
        };
        address.into_iter().for_each(|address| url(format!("sink {name}"), address));
    }
    for (name, notify) in pipeline.file.spikes.iter().flat_map(|spikes| &spikes.notify) {
        let what = format!("notifier {name}");
        match notify {
            Notify::Alertmanager(c) => c.urls.iter().for_each(|at| url(what.clone(), at)),
            Notify::Webhook(c) => url(what, c.url.expose()),
            Notify::Slack(c) => url(what, c.url.expose()),
        }
    }
    opa.into_iter().for_each(|at| url("opa".into(), at));
    let protocol = pipeline.file.kafka.properties.get("security.protocol").map(Property::value);
    if protocol.is_some_and(|p| p.to_ascii_lowercase().ends_with("ssl")) {
        let brokers = pipeline.file.kafka.brokers.split(',').map(str::trim);
        at.extend(
            brokers.map(|b| ("kafka".to_owned(), b.rsplit("://").next().unwrap_or(b).to_owned())),
        );
    }
    at.into_iter()
        .map(|(what, address)| {
            let (name, place) = (format!("certificate of {what}"), address.clone());
            Look::new(name.clone(), place, async move {
                match of_server(&address).await {
                    Some(validity) => judged(
                        Check::new(name, address),
                        validity,
                        crate::clock::now(),
                        "renew it where the server has it",
                    )
                    .into(),
                    // Why it can't be reached, who uses it says.
                    None => Seen::default(),
                }
            })
        })
        .collect()
}

/// Files of certificates that docket itself uses: those that are about to end, or can't be read.
pub fn files(pipeline: &Pipeline, now: Nanos) -> Vec<Check> {
    let file = &pipeline.file;
    let mut all: Vec<(String, &Path)> = Vec::new();
    for (name, sink) in &file.sinks {
        let tls: Option<&Tls> = match sink {
            SinkConfig::Otlp(c) => Some(&c.tls),
            SinkConfig::Loki(c) => Some(&c.tls),
            SinkConfig::Elasticsearch(c) => Some(&c.tls),
            SinkConfig::Cloudwatch(c) => Some(&c.tls),
            SinkConfig::File(_) | SinkConfig::Metrics(_) => None,
        };
        for path in tls.iter().flat_map(|tls| [&tls.ca_file, &tls.cert_file]).flatten() {
            all.push((format!("sink {name}"), path));
        }
    }
    for (what, tls) in [
        ("door", file.door.as_ref().and_then(|door| door.tls.as_ref())),
        ("admin port", file.admin.tls.as_ref()),
    ] {
        if let Some(tls) = tls {
            all.push((what.into(), &tls.cert_file));
            all.extend(tls.client_ca_file.iter().map(|path| (what.to_owned(), path.as_path())));
        }
    }
    let kafka: Vec<String> = ["ssl.certificate.location", "ssl.ca.location"]
        .into_iter()
        .filter_map(|name| Some(file.kafka.properties.get(name)?.value()))
        .collect();
    all.extend(kafka.iter().map(|path| ("kafka".to_owned(), Path::new(path.as_str()))));
    all.sort();
    all.dedup();
    let mut checks = Vec::new();
    let mut first: Option<Validity> = None;
    for (what, path) in &all {
        // Of a folder OpenSSL reads what it needs.
        if path.is_dir() {
            continue;
        }
        let check = Check::new(format!("certificate for {what}"), path.display().to_string());
        match of_file(path) {
            Err(why) => checks.push(check.wrong(
                why,
                format!("correct the path, or put a certificate in PEM there, for {what}"),
            )),
            Ok(validity) => {
                first = Some(first.filter(|f| f.to < validity.to).unwrap_or(validity));
                let check = judged(check, validity, now, "put a new one there; docket takes it up");
                if check.level != super::Level::Ok {
                    checks.push(check);
                }
            }
        }
    }
    if let Some(first) = first.filter(|_| checks.is_empty()) {
        let until = day(first.to);
        checks.push(
            Check::new("certificate files", format!("{} named", all.len()))
                .ok(format!("valid until {until} or longer")),
        );
    }
    checks
}

fn day(at: Nanos) -> String {
    time::format(at).chars().take(10).collect()
}

fn judged(check: Check, validity: Validity, now: Nanos, way_out: &str) -> Check {
    let days = u64::try_from((validity.to - now) / (86_400 * SECOND)).unwrap_or_default();
    if now > validity.to {
        check.wrong(format!("the certificate expired on {}", day(validity.to)), way_out)
    } else if now < validity.from {
        let says = format!("the certificate is not valid before {}", day(validity.from));
        check.wrong(says, "wait, correct this machine's clock, or make a new one")
    } else if validity.to - now < SOON {
        check.warning(
            format!("the certificate expires in {}, on {}", counted(days, "day"), day(validity.to)),
            way_out,
        )
    } else {
        check.ok(format!("valid until {}", day(validity.to)))
    }
}

/// The first to end of a file.
fn of_file(path: &Path) -> Result<Validity, String> {
    let wrong = |e: rustls::pki_types::pem::Error| format!("it can't be read: {e}");
    let mut all = Vec::new();
    for one in CertificateDer::pem_file_iter(path).map_err(wrong)? {
        let one = one.map_err(wrong)?;
        all.push(validity(&one).ok_or("it holds a certificate that can't be understood")?);
    }
    all.into_iter().min_by_key(|v| v.to).ok_or_else(|| "it holds no certificate in PEM".into())
}

/// The certificate that a server shows, whoever issued it.
async fn of_server(address: &str) -> Option<Validity> {
    let shown: Arc<Shown> = Arc::default();
    let config = rustls::ClientConfig::builder()
        .dangerous()
        .with_custom_certificate_verifier(shown.clone())
        .with_no_client_auth();
    let host = address.rsplit_once(':')?.0.trim_matches(['[', ']']).to_owned();
    let name = ServerName::try_from(host).ok()?;
    let stream = TcpStream::connect(address).await.ok()?;
    // Whether the server wants a certificate of ours is of no matter: it shows its own first.
    let _ = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    let der = shown.0.lock().unwrap_or_else(PoisonError::into_inner).take()?;
    validity(&der)
}

/// Looks at a certificate and trusts none: the connection is for looking only.
#[derive(Debug, Default)]
struct Shown(Mutex<Option<Vec<u8>>>);

impl ServerCertVerifier for Shown {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(end_entity.to_vec());
        Err(rustls::Error::General("only looked at".into()))
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only looked at".into()))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only looked at".into()))
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// The two times of a certificate (RFC 5280, section 4.1.2.5), by the few steps of DER that lead there.
fn validity(der: &[u8]) -> Option<Validity> {
    const SEQUENCE: u8 = 0x30;
    let (tag, certificate, _) = element(der)?;
    let (inner, mut tbs, _) = element(certificate)?;
    if (tag, inner) != (SEQUENCE, SEQUENCE) {
        return None;
    }
    // [0] version, if it is not 1; serial number, algorithm, issuer; then the times.
    if tbs.first() == Some(&0xa0) {
        tbs = element(tbs)?.2;
    }
    for _ in 0..3 {
        tbs = element(tbs)?.2;
    }
    let (_, times, _) = element(tbs)?;
    let (from_tag, from, rest) = element(times)?;
    let (to_tag, to, _) = element(rest)?;
    Some(Validity { from: moment(from_tag, from)?, to: moment(to_tag, to)? })
}

/// One element of DER: its tag, its content, and what comes behind it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match *first {
        short @ 0..=0x7f => (usize::from(short), rest),
        long @ 0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            (bytes.iter().fold(0, |n, b| n << 8 | usize::from(*b)), rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

/// UTCTime (YYMMDDHHMMSSZ, 1950 to 2049) or GeneralizedTime (YYYYMMDDHHMMSSZ).
fn moment(tag: u8, text: &[u8]) -> Option<Nanos> {
    let text = std::str::from_utf8(text).ok()?;
    let full = match tag {
        0x17 => format!("{}{text}", if text < "50" { "20" } else { "19" }),
        0x18 => text.to_owned(),
        _ => return None,
    };
    if full.len() != 15 || !full.is_ascii() || !full.ends_with('Z') {
        return None;
    }
    let part = |from: usize, to: usize| &full[from..to];
    time::parse(&format!(
        "{}-{}-{}T{}:{}:{}Z",
        part(0, 4),
        part(4, 6),
        part(6, 8),
        part(8, 10),
        part(10, 12),
        part(12, 14)
    ))
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn times_are_read_in_both_forms() {
        let at = |text: &str| time::parse(text).unwrap();
        assert_eq!(moment(0x17, b"261124124850Z"), Some(at("2026-11-24T12:48:50Z")));
        assert_eq!(moment(0x17, b"991231235959Z"), Some(at("1999-12-31T23:59:59Z")));
        assert_eq!(moment(0x18, b"20501231235959Z"), Some(at("2050-12-31T23:59:59Z")));
        for bad in [&b"2611241248Z"[..], b"", b"26112412485\xff0Z", b"261124124850+0"] {
            assert_eq!(moment(0x17, bad), None);
        }
    }

    #[test]
    fn what_is_cut_short_is_no_certificate() {
        for bad in [
            &b""[..],
            b"\x30",
            b"\x30\x03\x30\x01",
            b"\x30\x85\x01\x01\x01\x01\x01",
            b"\x30\x84\xff\xff\xff\xff",
        ] {
            assert_eq!(validity(bad), None);
        }
    }

    #[test]
    fn the_first_to_end_of_a_file_counts_and_is_judged() {
        let dir = tempfile::tempdir().unwrap();
        let make = |name: &str, days: &str| {
            let out = std::process::Command::new("openssl")
                .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"])
                .args(["-nodes", "-subj", "/CN=x", "-days", days, "-keyout", "/dev/null", "-out"])
                .arg(dir.path().join(name))
                .output()
                .unwrap();
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            std::fs::read_to_string(dir.path().join(name)).unwrap()
        };
        let both = make("long.pem", "365") + &make("short.pem", "10");
        let path = dir.path().join("both.pem");
        std::fs::write(&path, both).unwrap();
        let validity = of_file(&path).unwrap();
        let now = crate::clock::now();
        let days = (validity.to - now) as f64 / (86_400.0 * 1e9);
        assert!((days - 10.0).abs() < 0.1, "{days}");
        let level = |at| judged(Check::new("", ""), validity, at, "").level;
        assert_eq!(level(now), Level::Warning);
        assert_eq!(level(now - 20 * 86_400 * SECOND), Level::Wrong, "not yet valid");
        assert_eq!(level(now + 11 * 86_400 * SECOND), Level::Wrong);
        let long = of_file(&dir.path().join("long.pem")).unwrap();
        assert_eq!(judged(Check::new("", ""), long, now, "").level, Level::Ok);
        assert!(of_file(&dir.path().join("none.pem")).is_err());
    }
}
