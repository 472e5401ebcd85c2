use super::super::Level;
use super::*;

fn about() -> About {
    let text = "name: x\nkafka: {brokers: \"k:9092\"}\nsources: [{topic: opa-decisions}]\nsinks: {m: {type: metrics}}\n";
    let outside = &crate::config::secrets::Real;
    let pipeline = crate::pipeline::parse(std::path::Path::new("x.yaml"), text, outside).unwrap();
    About::new(&pipeline)
}

fn sound() -> Shape {
    Shape {
        partitions: 12,
        replicas: 3,
        behind: 0,
        leaderless: 0,
        retention: Some(7 * 86_400_000),
        cleanup: Some("delete".into()),
        min_insync: Some(2),
        brokers: 3,
    }
}

#[test]
fn each_way_to_keep_a_topic_badly_is_told_with_the_way_out() {
    let about = about();
    let judged =
        |shape: Shape, role: Role| shape.judged(&about, &Wanted { name: "t".into(), role });
    let checks = judged(sound(), Role::Docket);
    assert_eq!((checks.len(), checks[0].level), (1, Level::Ok), "{checks:?}");
    assert_eq!(checks[0].says, "12 partitions, 3 replicas, kept 7d");
    for (shape, level, says, way_out) in [
        (
            Shape { partitions: 1, ..sound() },
            Level::Warning,
            "one partition",
            "--alter --topic t --partitions 12",
        ),
        (
            Shape { replicas: 1, min_insync: Some(1), ..sound() },
            Level::Warning,
            "replication factor is 1",
            "reassign",
        ),
        (
            Shape { replicas: 1, min_insync: Some(1), brokers: 1, ..sound() },
            Level::Warning,
            "replication factor is 1",
            "three brokers",
        ),
        (
            Shape { min_insync: Some(4), ..sound() },
            Level::Wrong,
            "min.insync.replicas is 4",
            "min.insync.replicas=3",
        ),
        (
            Shape { cleanup: Some("compact,delete".into()), ..sound() },
            Level::Wrong,
            "compacted",
            "cleanup.policy=delete",
        ),
        (
            Shape { retention: Some(3_600_000), ..sound() },
            Level::Warning,
            "kept for 1h only",
            "retention.ms=604800000",
        ),
        (
            Shape { leaderless: 1, ..sound() },
            Level::Wrong,
            "1 partition without a leader",
            "brokers",
        ),
        (Shape { behind: 2, ..sound() }, Level::Warning, "2 partitions with replicas", "away"),
    ] {
        let checks = judged(shape.clone(), Role::Docket);
        assert_eq!(checks.len(), 1, "{checks:?}");
        assert_eq!(checks[0].level, level, "{shape:?}");
        assert!(checks[0].says.contains(says) && checks[0].way_out.contains(way_out), "{checks:?}");
    }
    let day = 86_400_000;
    let rejects = Shape { partitions: 1, retention: Some(14 * day), ..sound() };
    assert_eq!(judged(rejects.clone(), Role::Rejects)[0].level, Level::Ok);
    // As long as the docket is not longer.
    let checks = judged(Shape { retention: Some(7 * day), ..rejects }, Role::Rejects);
    assert_eq!(checks[0].level, Level::Warning);
    assert!(checks[0].says.contains("rejects go before what they are of"), "{checks:?}");
    assert!(checks[0].way_out.contains("retention.ms=1209600000"), "{checks:?}");
    let ever = Shape { retention: Some(-1), ..sound() };
    assert_eq!(judged(ever, Role::Source)[0].level, Level::Ok);
}

#[test]
fn a_misspelt_topic_is_told_from_one_that_is_not_there() {
    let topics = ["opa-decisions", "docket.opa", "__consumer_offsets", "orders"];
    assert_eq!(nearest("opa-decision", topics.into_iter()), Some("opa-decisions"));
    assert_eq!(nearest("opa_decisions", topics.into_iter()), Some("opa-decisions"));
    assert_eq!(nearest("audit", topics.into_iter()), None);
    assert_eq!(nearest("_consumer_offsets", topics.into_iter()), None);
}

#[test]
fn a_cluster_is_looked_at_without_a_trace() {
    let mock = crate::log::mock::Mock::start(&[("opa-decisions", 2)]).unwrap();
    let mut about = about();
    about.kafka.brokers = mock.bootstrap();
    about.wanted[0].name = "opa-decision".into();
    about.wanted.push(Wanted { name: "docket.x.spikes".into(), role: Role::Learned });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let checks = cluster(&about, runtime.handle());
    let of =
        |what: &str| checks.iter().find(|c| c.what == what).unwrap_or_else(|| panic!("{checks:?}"));
    assert_eq!(of("kafka").level, Level::Ok);
    assert!(of("topic opa-decision").says.contains("did you mean opa-decisions?"));
    assert_eq!(of("topic docket.x").way_out, "docket setup x.yaml");
    let learned = of("topic docket.x.spikes");
    assert_eq!((learned.level, &*learned.way_out), (Level::Warning, "docket setup x.yaml"));
}

/// Whatever `docket setup` makes is looked at, and so is every source.
#[test]
fn each_topic_that_a_pipeline_has_is_wanted_once() {
    let text = "name: x\nkafka: {brokers: \"k:9092\"}\nsources: [{topic: opa}, {topic: other}]\nsinks: {m: {type: metrics}}\nspikes: {}\njoin: {key: trace_id, facts: [{topic: access, format: access_log}]}\n";
    let outside = &crate::config::secrets::Real;
    let pipeline = crate::pipeline::parse(std::path::Path::new("x.yaml"), text, outside).unwrap();
    let wanted = About::new(&pipeline).wanted;
    let of = |name: &str| {
        let mut all = wanted.iter().filter(|w| w.name == name);
        let role = all.next().unwrap_or_else(|| panic!("{name}: {wanted:?}")).role;
        assert_eq!(all.next(), None);
        role
    };
    for source in ["opa", "other", "access"] {
        assert_eq!(of(source), Role::Source);
    }
    for docket in ["docket.x", "docket.x.pending", "docket.x.facts"] {
        assert_eq!(of(docket), Role::Docket);
    }
    assert_eq!(of("docket.x.rejects"), Role::Rejects);
    assert_eq!(of("docket.x.amendments"), Role::Rejects);
    assert_eq!(of("docket.x.spikes"), Role::Learned);
    assert_eq!(wanted.len(), 9);
}

#[test]
fn what_is_learned_has_to_be_compacted_and_has_one_partition() {
    let about = about();
    let judged = |cleanup: &str| {
        let shape = Shape { partitions: 1, cleanup: Some(cleanup.into()), ..sound() };
        shape.judged(&about, &Wanted { name: "t".into(), role: Role::Learned })
    };
    assert_eq!((judged("compact").len(), judged("compact")[0].level), (1, Level::Ok));
    let wrong = judged("delete");
    assert_eq!(wrong[0].level, Level::Wrong);
    assert!(wrong[0].way_out.contains("cleanup.policy=compact"), "{wrong:?}");
}
