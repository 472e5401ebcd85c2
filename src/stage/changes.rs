//! What a changed pipeline file changes of a pipeline that runs. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::units::Bytes;
use crate::door::config::DoorConfig;
use crate::pipeline::File;
use crate::pipeline::file::Intake;
use crate::pipeline::join::Join;
use crate::telemetry::config::Telemetry;

/// The parts that are started again.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub intake: bool,
    pub door: bool,
    pub spikes: bool,
    pub facts: bool,
    pub join: bool,
    pub sinks: BTreeSet<String>,
    /// Who may come in through the door; it stays open.
    pub tokens: bool,
}

/// What can't change while docket runs.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} can't be changed while docket runs; start it again")]
pub struct Fixed(pub &'static str);

/// Every section of the file stands here, so that a new one can't be forgotten.
pub fn changes(was: &File, is: &File) -> Result<Changes, Fixed> {
    let File {
        name,
        kafka,
        sources,
        door,
        intake,
        limits,
        verdict,
        verdict_policy,
        trace,
        service,
        request,
        protect,
        docket,
        sinks,
        // It makes the sizes in other sections smaller, which are compared there.
        memory: _,
        watchdog,
        spikes,
        join,
        // Asked by `docket verify` alone.
        probes: _,
        admin,
        telemetry,
        // Run by `docket check` alone.
        tests: _,
    } = was;
    // What is pushed, the process does, for all of its pipelines.
    let Telemetry { otlp, push: _ } = telemetry;
    for (what, same) in [
        ("name", *name == is.name),
        ("admin", *admin == is.admin),
        ("telemetry.otlp", *otlp == is.telemetry.otlp),
        ("kafka", *kafka == is.kafka),
        ("docket", *docket == is.docket),
        ("watchdog", *watchdog == is.watchdog),
        // Who reads and who writes which topic depends on it.
        ("join", without_memory(join) == without_memory(&is.join)),
    ] {
        if !same {
            return Err(Fixed(what));
        }
    }
    let memory = |join: &Option<Join>| join.as_ref().map(|join| join.memory);
    let Intake {
        instance_id,
        group: _,
        start: _,
        transaction_interval: _,
        transaction_bytes: _,
        prefetch: _,
    } = intake;
    let decided = *trace != is.trace || *service != is.service;
    let read = *sources != is.sources || *limits != is.limits;
    // With protect, what the door rejects is without its content, too.
    let door_changes = without_tokens(door) != without_tokens(&is.door)
        || decided
        || read
        || protect.is_some() != is.protect.is_some();
    let tokens = |door: &Option<DoorConfig>| door.as_ref().map(|door| door.tokens.clone());
    // Every member of a group has its name from it.
    let members = *instance_id != is.intake.instance_id;
    let names = sinks.keys().chain(is.sinks.keys());
    let changed = names.filter(|name| members || whole(was, name) != whole(is, name));
    let intake = decided
        || read
        || *intake != is.intake
        || *verdict != is.verdict
        || *verdict_policy != is.verdict_policy
        || *request != is.request
        || *protect != is.protect;
    Ok(Changes {
        intake,
        door: door_changes && (door.is_some() || is.door.is_some()),
        spikes: *spikes != is.spikes,
        // It reads as intake does.
        facts: join.is_some() && intake,
        // So does the join, which watches the sources of both, tells the detector of gaps, and names documents of sinks in amendments, by
        // what each of them gets.
        join: join.is_some()
            && (intake
                || memory(join) != memory(&is.join)
                || spikes.is_some() != is.spikes.is_some()
                || was.documents() != is.documents()),
        sinks: changed.cloned().collect(),
        tokens: !door_changes && tokens(door) != tokens(&is.door),
    })
}

/// The door without its tokens, which may change while it is open.
fn without_tokens(door: &Option<DoorConfig>) -> Option<DoorConfig> {
    door.clone().map(|door| DoorConfig { tokens: BTreeMap::new(), ..door })
}

/// The join without what it may hold, which depends on how many sinks there are: these may change.
fn without_memory(join: &Option<Join>) -> Option<Join> {
    join.clone().map(|join| Join { memory: Bytes(0), ..join })
}

/// A sink changes with the one that it hands on to.
fn whole<'f>(file: &'f File, name: &str) -> Option<impl PartialEq + use<'f>> {
    let sink = file.sinks.get(name)?;
    Some((sink, file.sinks.get(&sink.delivery().too_old)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::secrets::Real;
    use crate::pipeline::parse;

    const FILE: &str = "name: opa
kafka: {brokers: k}
sources: [{topic: decisions}]
sinks:
  a: {type: file, path: a, delivery: {max_age: 1d, too_old: old}}
  b: {type: file, path: b}
  old: {type: file, path: old}
door: {listen: '127.0.0.1:0', tokens: {t: '${env:TOKEN:-sixteen-bytes-or-more}'}}
spikes: {}
";

    fn file(text: &str) -> File {
        let parsed = parse(std::path::Path::new("p.yaml"), text, &Real);
        parsed.unwrap_or_else(|e| panic!("{e}")).file
    }

    fn changed(from: &str, to: &str) -> Result<Changes, Fixed> {
        assert!(FILE.contains(from), "{from}");
        changes(&file(FILE), &file(&FILE.replacen(from, to, 1)))
    }

    #[test]
    fn a_change_starts_again_what_it_is_of() {
        let sinks = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        let none = || Changes { ..Changes::default() };
        for (from, to, changes) in [
            ("name: opa", "name: opa", none()),
            ("path: b", "path: c", Changes { sinks: sinks(&["b"]), ..none() }),
            ("path: old", "path: new", Changes { sinks: sinks(&["a", "old"]), ..none() }),
            ("  b: {type: file, path: b}\n", "", Changes { sinks: sinks(&["b"]), ..none() }),
            ("spikes: {}", "spikes: {floor: 9}", Changes { spikes: true, ..none() }),
            ("bytes-or-more", "bytes-or-less", Changes { tokens: true, ..none() }),
            ("'127.0.0.1:0'", "'127.0.0.1:1'", Changes { door: true, ..none() }),
            (
                "spikes: {}",
                "spikes: {}\nprotect: {}",
                Changes { intake: true, door: true, ..none() },
            ),
            ("spikes: {}", "spikes: {}\nverdict: [{path: a}]", Changes { intake: true, ..none() }),
            (
                "spikes: {}",
                "spikes: {}\nlimits: {record_bytes: 9MiB}",
                Changes { intake: true, door: true, ..none() },
            ),
            (
                "spikes: {}",
                "spikes: {}\nintake: {instance_id: one}",
                Changes { intake: true, sinks: sinks(&["a", "b", "old"]), ..none() },
            ),
            ("spikes: {}", "spikes: {}\nprobes: [{path: a, expect: deny}]", none()),
        ] {
            assert_eq!(changed(from, to), Ok(changes), "{to}");
        }
        assert_eq!(changed("brokers: k", "brokers: l"), Err(Fixed("kafka")));
    }

    #[test]
    fn sinks_of_a_joined_pipeline_come_change_and_go() {
        const B: &str = "b: {type: elasticsearch, url: 'http://e', delivery: {batch_records: 9}}";
        let parts = |budget: &str, from: &str, to: &str| {
            let memory = format!("memory: {{budget: {budget}}}\n");
            let joined = format!("{FILE}{memory}join: {{facts: [{{topic: f}}]}}\n")
                .replace("b: {type: file, path: b}", B);
            assert!(joined.contains(from), "{from}");
            let changes = changes(&file(&joined), &file(&joined.replacen(from, to, 1)))?;
            assert!(!from.contains("b:") || changes.sinks.contains("b"), "{to}");
            Ok([changes.intake, changes.facts, changes.join])
        };
        let roomy = |from: &str, to: &str| parts("9GiB", from, to);
        let alone = Ok([false, false, false]);
        assert_eq!(roomy(B, &B.replace("9}", "8}")), alone);
        assert_eq!(
            roomy("old: {type", "new: {type: otlp, endpoint: 'http://t'}\n  old: {type"),
            alone
        );
        // Documents are named by what their sink gets.
        let named = Ok([false, false, true]);
        assert_eq!(roomy(B, &B.replace("batch_records: 9", "redact: [/input]")), named);
        assert_eq!(roomy(B, &B.replace("'http://e'", "'http://e', data_stream: true")), named);
        assert_eq!(roomy(B, ""), named);
        // Where memory is short, what each part may hold depends on how many there are.
        let all = Ok([true, true, true]);
        let tight = |from: &str, to: &str| parts("512MiB", from, to);
        assert_eq!(tight(B, &B.replace("9}", "8}")), alone);
        assert_eq!(tight(B, ""), all);
        assert_eq!(tight("old: {type", "new: {type: file, path: n}\n  old: {type"), all);
        // They take more from the file than what is theirs.
        assert_eq!(roomy("{topic: decisions}", "{topic: others}"), all);
        assert_eq!(roomy("spikes: {}", ""), named);
        assert_eq!(roomy("[{topic: f}]", "[{topic: f}], memory: 99MiB"), named);
        assert_eq!(roomy("{topic: f}", "{topic: g}"), Err(Fixed("join")));
    }
}
