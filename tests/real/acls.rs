//! docket with the rights that deploy/kafka/acls.sh gives, and no others, on a Kafka that wants to know who asks.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::support::{Place, Running, docket, generated, produce};
use super::{address, create_topic, pipeline};

/// Kafka's own command, as its distribution calls it.
fn kafka_acls(place: &Place) -> std::path::PathBuf {
    let path = place.path("kafka-acls.sh");
    let text = format!(
        "#!/bin/sh\nexec java -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp '{}' org.apache.kafka.tools.AclCommand \"$@\"\n",
        address("KAFKA_CLASSPATH")
    );
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn the_least_rights_are_enough() {
    let _servers = super::together().await;
    let place = Place::new("acls");
    let name = place.name.clone();
    let (kafka, sasl) = (address("KAFKA_BOOTSTRAP"), address("KAFKA_SASL_BOOTSTRAP"));
    let source = format!("{name}-source");
    let password = place.secret("password", "docket-password");
    let rest = format!(
        "kafka:
  brokers: \"{sasl}\"
  properties: {{security.protocol: SASL_PLAINTEXT, sasl.mechanism: PLAIN, sasl.username: docket, sasl.password: {password}}}
docket: {{partitions: 2}}
spikes: {{}}
join: {{facts: [{{topic: $NAME-access}}], wait: 1s}}
sinks:
  lines: {{type: file, path: {}}}
",
        place.path("lines.ndjson").display()
    );

    // Without rights docket says so.
    let early = place.pipeline(&format!("name: $NAME\nsources: [{{topic: $NAME-source}}]\n{rest}"));
    let refused = docket().args(["setup", "--yes"]).arg(&early).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && said.contains("uthoriz") && !said.contains("docket-password"),
        "{said}"
    );

    let script = format!("{}/deploy/kafka/acls.sh", env!("CARGO_MANIFEST_DIR"));
    let given = Command::new(script)
        .args([&kafka, &name, &source])
        .env("KAFKA_ACLS", kafka_acls(&place))
        .env("FACTS", format!("{name}-access"))
        .output()
        .unwrap();
    assert!(given.status.success(), "{given:?}");

    create_topic(&kafka, &format!("{name}-access"), 2, &[]).await;
    let path = pipeline(&place, 2, &rest).await;
    produce(&kafka, &format!("{name}-access"), ["no request"]);
    produce(&kafka, &source, generated(500, 9));
    produce(&kafka, &source, ["no decision"]);
    let running = Running::start(&place, &path);
    let metrics = running.until("all are delivered", 60, |m| m.delivered("lines") == 500).await;
    assert_eq!((metrics.written(), metrics.rejected()), (500, 1));
    running
        .until("requests are read", 60, |m| m.sum("docket_rejects_total", &["part=\"facts\""]) == 1)
        .await;
    let complete = "docket_join_complete_timestamp_seconds";
    running.until("it may ask how far intake is", 60, |m| m.sum(complete, &[]) > 0).await;
    running.until("the spike detector runs", 60, |m| m.sum("docket_spikes_leader", &[]) == 1).await;
    let log = running.stop();
    assert!(!log.contains("uthoriz"), "{log}");

    let out = place.path("review").display().to_string();
    for (args, said) in [
        (vec!["rejects"], "not_json"),
        (vec!["verify", "--from", "start"], ""),
        (vec!["spikes", "--since", "start"], ""),
        (vec!["capacity", "--since", "start", "--out", &out], "review.html"),
    ] {
        let ran = docket().arg(args[0]).arg(&path).args(&args[1..]).output().unwrap();
        let (text, errors) =
            (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
        assert!(ran.status.success() && text.contains(said), "{args:?}: {text}\n{errors}");
    }

    // Sending rejects of intake round again writes to the source, which is not docket's to do.
    let refused =
        docket().arg("redrive").arg(&path).args(["--sink", "intake", "--send"]).output().unwrap();
    assert!(
        !refused.status.success()
            && String::from_utf8_lossy(&refused.stderr).contains("TopicAuthorizationFailed"),
        "{refused:?}"
    );

    // Another pipeline's topics are not docket's to read.
    let other = place.path("other.yaml");
    let text = std::fs::read_to_string(&path).unwrap().replace(&name, "somebody-else");
    create_topic(&kafka, "docket.somebody-else", 1, &[]).await;
    std::fs::write(&other, text).unwrap();
    let refused = docket().arg("capacity").arg(&other).args(["--out", &out]).output().unwrap();
    assert!(!refused.status.success(), "{refused:?}");
}
