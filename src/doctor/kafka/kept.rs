//! How topics are kept: partitions, copies, compaction, retention.

use rdkafka::admin::ConfigResource;
use rdkafka::metadata::MetadataTopic;

use super::{About, Wanted};
use crate::doctor::Check;
use crate::pipeline::topics::Role;
use crate::words::counted;

/// Of a source, where the pipeline file wants one partition of docket's own.
pub(super) const SOME: u32 = 12;

/// How a topic that is there is kept: one line of what is wrong each, or one that says how it is.
pub(super) fn kept(
    about: &About,
    wanted: &Wanted,
    topic: &MetadataTopic,
    brokers: usize,
    config: Option<&ConfigResource>,
) -> Vec<Check> {
    let setting = |name: &str| config?.get(name)?.value.clone();
    let number = |name: &str| setting(name)?.parse::<i64>().ok();
    let each = topic.partitions();
    let shape = Shape {
        partitions: each.len(),
        replicas: each.iter().map(|p| p.replicas().len()).min().unwrap_or(0),
        behind: each.iter().filter(|p| p.isr().len() < p.replicas().len()).count(),
        leaderless: each.iter().filter(|p| p.leader() < 0).count(),
        retention: number("retention.ms"),
        cleanup: setting("cleanup.policy"),
        min_insync: number("min.insync.replicas"),
        brokers,
    };
    shape.judged(about, wanted)
}

#[derive(Debug, Clone)]
pub(super) struct Shape {
    pub(super) partitions: usize,
    pub(super) replicas: usize,
    pub(super) behind: usize,
    pub(super) leaderless: usize,
    /// In milliseconds; less than 0 is for ever. None if docket may not ask.
    pub(super) retention: Option<i64>,
    pub(super) cleanup: Option<String>,
    pub(super) min_insync: Option<i64>,
    pub(super) brokers: usize,
}

impl Shape {
    pub(super) fn judged(&self, about: &About, wanted: &Wanted) -> Vec<Check> {
        let Wanted { name, role } = wanted;
        let check = || about.check(format!("topic {name}"));
        let alter = |setting: &str| {
            format!(
                "kafka-configs.sh --bootstrap-server {} --alter --topic {name} --add-config {setting}",
                about.kafka.brokers
            )
        };
        let mut checks = Vec::new();
        if self.leaderless > 0 {
            checks.push(check().wrong(
                format!("{} without a leader", counted(self.leaderless as u64, "partition")),
                "bring back the brokers that hold it",
            ));
        }
        checks.extend(self.spread(about, wanted, check()));
        checks.extend(self.copied(check(), &alter));
        if self.behind > 0 {
            checks.push(check().warning(
                format!(
                    "{} with replicas that are behind or away",
                    counted(self.behind as u64, "partition")
                ),
                "see which broker is away",
            ));
        }
        let compacted = self.cleanup.as_deref().map(|policy| policy.contains("compact"));
        if *role == Role::Learned {
            if compacted == Some(false) {
                checks.push(check().wrong(
                    "it is not compacted (cleanup.policy): what the detector of spikes has learned is gone after retention.ms",
                    alter("cleanup.policy=compact"),
                ));
            }
        } else if compacted == Some(true) {
            checks.push(check().wrong(
                "it is compacted (cleanup.policy): of decisions with one key, all but the last are lost",
                alter("cleanup.policy=delete"),
            ));
        }
        checks.extend(self.retained(about, wanted, check(), &alter));
        if checks.is_empty() {
            let replicas = counted(self.replicas as u64, "replica");
            let retention = self.retention.map_or_else(
                || "retention not known (DescribeConfigs is not granted)".to_owned(),
                |ms| format!("kept {}", span(ms)),
            );
            let partitions = counted(self.partitions as u64, "partition");
            checks.push(check().ok(format!("{partitions}, {replicas}, {retention}")));
        }
        checks
    }

    /// One partition, where more would help: not where the pipeline file wants one.
    fn spread(&self, about: &About, wanted: &Wanted, check: Check) -> Option<Check> {
        let most = match wanted.role {
            Role::Rejects | Role::Amendments | Role::Learned => return None,
            Role::Docket => about.partitions,
            Role::Source => about.partitions.max(SOME),
        };
        (self.partitions == 1 && most > 1).then(|| {
            let alter = format!("--alter --topic {} --partitions {most}", wanted.name);
            check.warning(
                "it has one partition: one process reads it, and no more of them help",
                about.topics_command(&alter),
            )
        })
    }

    /// Fewer copies than it should have. There is one way out: more of them, if there are brokers for that.
    fn copied(&self, check: Check, alter: &dyn Fn(&str) -> String) -> Option<Check> {
        let replicas = i64::try_from(self.replicas).unwrap_or(i64::MAX);
        let brokers = i64::try_from(self.brokers).unwrap_or(i64::MAX);
        let min = self.min_insync.filter(|min| *min > replicas);
        let most = brokers.min(min.map_or(3, |min| min.max(3)));
        let reassign = format!(
            "kafka-reassign-partitions.sh, with {most} replicas for each partition; docket.replication: {most} for topics that docket makes"
        );
        if let Some(min) = min {
            let says = format!(
                "min.insync.replicas is {min}, and it has {}: nothing can be written to it",
                counted(self.replicas as u64, "replica")
            );
            let way_out = if brokers >= min {
                reassign
            } else {
                alter(&format!("min.insync.replicas={}", replicas.max(1)))
            };
            return Some(check.wrong(says, way_out));
        }
        (self.replicas == 1).then(|| match self.brokers {
            1 => check.warning(
                "its replication factor is 1: what is in it is lost with Kafka's one broker",
                "for production, run three brokers or more, and create it with replication factor 3",
            ),
            _ => check.warning(
                "its replication factor is 1: a broker that is lost takes decisions with it, one that restarts stops docket",
                reassign,
            ),
        })
    }

    fn retained(
        &self,
        about: &About,
        wanted: &Wanted,
        check: Check,
        alter: &dyn Fn(&str) -> String,
    ) -> Option<Check> {
        let ms = self.retention.filter(|ms| *ms >= 0)?;
        let (least, why) = match wanted.role {
            // The latest piece by key stays.
            Role::Learned => return None,
            // What is away for a day loses nothing.
            Role::Source => (86_400_000, "docket can be away for no longer".to_owned()),
            Role::Rejects => {
                let docket = i64::try_from(about.retention.as_millis()).unwrap_or(i64::MAX);
                let why = format!(
                    "rejects go before what they are of; docket.retention says {}",
                    span(docket)
                );
                (docket.saturating_add(1), why)
            }
            Role::Docket | Role::Amendments => {
                let wanted = i64::try_from(about.retention.as_millis()).unwrap_or(i64::MAX);
                (wanted, format!("docket.retention says {}", span(wanted)))
            }
        };
        (ms < least).then(|| {
            check.warning(
                format!("it is kept for {} only: {why}", span(ms)),
                alter(&format!(
                    "retention.ms={}",
                    if wanted.role == Role::Rejects {
                        (least - 1).saturating_mul(2)
                    } else {
                        least
                    }
                )),
            )
        })
    }
}

/// Milliseconds for people.
fn span(ms: i64) -> String {
    let (day, hour, minute) = (86_400_000, 3_600_000, 60_000);
    match ms {
        ..0 => "for ever".into(),
        ms if ms >= day && ms % day == 0 => format!("{}d", ms / day),
        ms if ms >= hour && ms % hour == 0 => format!("{}h", ms / hour),
        ms if ms >= minute && ms % minute == 0 => format!("{}m", ms / minute),
        ms => format!("{}s", ms / 1000),
    }
}
