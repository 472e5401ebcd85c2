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
    // What `docket setup` makes of amendments is right.
    let amendments = Shape { partitions: 1, retention: Some(7 * day), ..sound() };
    assert_eq!(judged(amendments, Role::Amendments)[0].level, Level::Ok);
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

fn looked_at(about: &About) -> Vec<Check> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let checks = Mutex::new(Vec::new());
    cluster(about, runtime.handle(), &|check| checks.lock().unwrap().push(check));
    checks.into_inner().unwrap()
}

#[test]
fn a_kafka_that_has_answered_and_takes_its_time_is_slow_and_nothing_else() {
    let mock = crate::log::mock::Mock::start(&[("opa-decisions", 2)]).unwrap();
    let mut about = about();
    about.kafka.brokers = mock.bootstrap();
    let asker = Asker::new(&about.kafka, "test", None).unwrap();
    let all = asker.metadata(None, Duration::from_secs(10)).unwrap();
    mock.slow_down(Duration::from_secs(20)).unwrap();
    let check =
        absent(&about, &Wanted { name: "docket.x".into(), role: Role::Docket }, &asker, &all);
    assert_eq!(check.level, Level::Warning, "{check:?}");
    let told = format!("{} {}", check.says, check.way_out);
    assert!(
        told.contains("slow: no answer in 1.") && !told.contains("security.protocol"),
        "{told}"
    );
    assert!(!check.astray, "{check:?}");
}

#[test]
fn what_a_slow_kafka_did_not_answer_in_time_is_named() {
    let about = about();
    let mut checks = vec![about.check("kafka").ok("1 broker answering")];
    checks.push(about.check("topic opa-decisions").ok("2 partitions"));
    let check = late(&about, &checks);
    assert_eq!(check.level, Level::Warning);
    assert!(check.says.contains("slowly") && check.says.contains("docket.x"), "{check:?}");
    assert!(!check.says.contains("opa-decisions"), "{check:?}");
    assert!(!check.way_out.contains("security.protocol") && !check.astray, "{check:?}");
    let seen = about.wanted.iter().map(|w| about.check(format!("topic {}", w.name)).ok(""));
    assert!(late(&about, &seen.collect::<Vec<_>>()).says.ends_with("rights and clocks"));
}

#[test]
fn rights_are_given_to_who_logs_in() {
    let acls = |kafka: &str, more: &str| {
        let text = format!(
            "name: x\nkafka: {{brokers: 'k:9092'{kafka}}}\nsources: [{{topic: opa}}]\n{more}"
        );
        let outside = &crate::config::secrets::Real;
        super::acls(&crate::pipeline::parse(std::path::Path::new("x"), &text, outside).unwrap())
    };
    let unknown = "as an administrator, with NAME as Kafka calls docket: PRINCIPAL=User:NAME deploy/kafka/acls.sh k:9092 x opa";
    assert_eq!(acls("", ""), unknown);
    let login = ", properties: {sasl.mechanism: SCRAM-SHA-512, sasl.username: opa-docket}";
    assert!(acls(login, "").contains("PRINCIPAL=User:opa-docket deploy"), "{}", acls(login, ""));
    let join =
        "join: {key: trace_id, facts: [{topic: access, format: access_log}]}\ndocket: {topic: d}\n";
    let command = acls("", join);
    assert!(command.contains(" FACTS=access DOCKET_TOPIC=d deploy/"), "{command}");
    assert!(command.ends_with(" k:9092 x opa"), "{command}");
}

#[test]
fn ways_out_of_one_topic_do_not_contradict_each_other() {
    let mut about = about();
    let judged =
        |about: &About, shape: Shape, role| shape.judged(about, &Wanted { name: "t".into(), role });
    // Three brokers, one replica: more of them, and nothing is lowered.
    let shape = Shape { replicas: 1, min_insync: Some(2), ..sound() };
    let checks = judged(&about, shape, Role::Docket);
    assert_eq!((checks.len(), checks[0].level), (1, Level::Wrong), "{checks:?}");
    assert!(checks[0].way_out.contains("with 3 replicas"), "{checks:?}");
    // No more copies than brokers.
    let two = Shape { replicas: 1, min_insync: Some(1), brokers: 2, ..sound() };
    assert!(judged(&about, two, Role::Docket)[0].way_out.contains("with 2 replicas"));
    // Where the file wants one partition, one is right; a source may have more.
    about.partitions = 1;
    let one = Shape { partitions: 1, ..sound() };
    assert_eq!(judged(&about, one.clone(), Role::Docket)[0].level, Level::Ok);
    let source = judged(&about, one, Role::Source);
    assert!(source[0].way_out.ends_with("--partitions 12"), "{source:?}");
}

#[test]
fn a_cluster_is_looked_at_without_a_trace() {
    let mock = crate::log::mock::Mock::start(&[("opa-decisions", 2)]).unwrap();
    let mut about = about();
    about.kafka.brokers = mock.bootstrap();
    about.wanted[0].name = "opa-decision".into();
    about.wanted.push(Wanted { name: "docket.x.spikes".into(), role: Role::Learned });
    let checks = looked_at(&about);
    let of =
        |what: &str| checks.iter().find(|c| c.what == what).unwrap_or_else(|| panic!("{checks:?}"));
    assert_eq!(of("kafka").level, Level::Ok);
    assert!(of("topic opa-decision").says.contains("did you mean opa-decisions?"));
    let create = ", or docket setup x.yaml --yes";
    assert!(of("topic opa-decision").way_out.ends_with(create), "{checks:?}");
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
    assert_eq!(of("docket.x.amendments"), Role::Amendments);
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

/// A group that reads several topics is one, and docket's commands are in none.
#[test]
fn each_consumer_group_is_counted_once() {
    let text = "name: x\nkafka: {brokers: \"k:9092\"}\nsources: [{topic: a}, {topic: b}]\nspikes: {}\nsinks: {m: {type: metrics}, l: {type: file, path: l}}\n";
    let outside = &crate::config::secrets::Real;
    let pipeline = crate::pipeline::parse(std::path::Path::new("x.yaml"), text, outside).unwrap();
    let about = About::new(&pipeline);
    let readers = about.readers.iter().map(|_| std::thread::spawn(|| Ok(Some(())))).collect();
    let told = std::cell::RefCell::new(Vec::new());
    rights(&about, readers, &|check| told.borrow_mut().push(check.says));
    // Intake, two sinks, spikes.
    assert_eq!(told.into_inner(), ["4 consumer groups may read their topics"]);
}
