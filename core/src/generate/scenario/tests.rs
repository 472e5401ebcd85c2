use super::platform::uuid;
use super::*;
use crate::decision::event::Event as Decision;
use crate::decision::record::Record;
use crate::decision::record::{self, Rules};

/// What is generated as JSON is read back as what the detector is measured on.
#[test]
fn the_json_of_a_decision_is_the_decision() {
    for scenario in [Scenario::Attack, Scenario::BadBundle] {
        let mut day = Day::new(scenario, 3, 1_795_000_000 * SECOND, 1.0);
        day.skip_to(day.event_at() + 30 * SECOND);
        let mut second = Vec::new();
        day.second(&mut second);
        assert!(second.len() > 3);
        for made in &second {
            let json = day.json(made).to_string();
            let mut out = Vec::new();
            record::write(
                &Decision::parse(json.as_bytes()).unwrap(),
                &[],
                None,
                &Rules::default(),
                &mut out,
            );
            let record = Record::parse(&out).unwrap();
            let read = Observation::with(&record, |o| format!("{o:?}")).unwrap();
            let id = uuid(made.id);
            let made =
                day.observe(made, |o| format!("{:?}", Observation { decision_id: &id, ..*o }));
            assert_eq!(read, made);
        }
    }
}
