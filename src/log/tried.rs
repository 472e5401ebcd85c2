//! Whether clients can be made with what a pipeline file says, without asking a broker.

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::producer::BaseProducer;

use super::config::{Compression, Kafka, Start};
use super::{Reading, fetch, transactional};

/// What depends on the machine on which docket runs, or makes noise. `docket doctor` looks at it.
const ELSEWHERE: [&str; 6] = ["sasl.", "ssl.", "security.", "https.", "plugin.", "debug"];

/// Makes a member of a group and a producer of transactions, as docket does; why librdkafka does not, which tells of properties that don't
/// go together. Nothing is connected to.
pub fn tried(kafka: &Kafka) -> Result<(), String> {
    let mut kafka = kafka.clone();
    let elsewhere = |name: &str| ELSEWHERE.iter().any(|begin| name.starts_with(begin));
    kafka.properties.retain(|name, _| !elsewhere(name));
    let reading = Reading {
        kafka: &kafka,
        part: "check",
        group: "docket.check",
        topics: &[],
        start: Start::Earliest,
        writes: None,
        stops_at_gaps: false,
        instance_id: None,
        prefetch: 16 << 20,
        shared: None,
        together: false,
        time: |_| None,
    };
    let mut member = fetch::config(&reading, (16 << 10, 16 << 10));
    let mut writer = transactional::transactional_config(
        &kafka,
        "check",
        "docket.check",
        Compression::None,
        None,
    );
    for config in [&mut member, &mut writer] {
        config.remove("bootstrap.servers").remove("debug").set_log_level(RDKafkaLogLevel::Emerg);
    }
    let member: KafkaResult<BaseConsumer> = member.create();
    let writer: KafkaResult<BaseProducer> = writer.create();
    let told = |error| match error {
        KafkaError::ClientCreation(why) => why,
        error => error.to_string(),
    };
    let told = |error| format!("no client can be made with these: {}", told(error));
    member.map_err(told)?;
    writer.map_err(told)?;
    Ok(())
}
