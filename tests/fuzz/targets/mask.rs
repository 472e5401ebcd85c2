//! Protection: whatever the decision, what is left of it is JSON and still that decision, and a secret that is planted in it is gone.
#![no_main]

use std::sync::{Arc, LazyLock};

use docket::decision::event::Event;
use docket::protect::detect::{Act, Detect};
use docket::protect::detector;
use docket::protect::rules::{Action, Pattern, Rule};
use docket::protect::keys::Key;
use docket::protect::taken::Taken;
use docket::protect::tree::Node;
use docket::protect::{Protected, Protection, opa};
use libfuzzer_sys::fuzz_target;

static SHIELD: LazyLock<Protection> = LazyLock::new(|| {
    let key = Arc::new(Key::new("k", &"ab".repeat(32)).expect("a key"));
    let rule = |path: &str, action| Rule {
        path: Pattern::parse(path).expect("a pattern"),
        policy: None,
        action,
    };
    Protection {
        rules: vec![
            rule("/input/**/user", Action::Truncate(3)),
            rule("/input/*/*", Action::Replace("1".into())),
            rule("/input/**/method", Action::Encrypt(key)),
            rule("/result/**/token", Action::Erase),
        ],
        detect: Some(Detect::new(detector::ALL.map(|_| Some(Act::Erase)))),
        sizes: vec![("input", 2000), ("result", 500)],
        ..Protection::default()
    }
});

const SECRET: &str = "AKIAIOSFODNN7EXAMPLE";

fuzz_target!(|bytes: &[u8]| {
    let Ok(event) = Event::parse(bytes) else { return };
    let mut hits = Vec::new();
    if let Ok(Protected::Changed(text)) = SHIELD.protect(&event, &mut hits) {
        let changed = Event::parse(text.as_bytes()).expect("what is left is a decision");
        assert_eq!(
            (changed.decision_id, changed.timestamp, changed.path),
            (event.decision_id.clone(), event.timestamp, event.path.clone())
        );
    }
    // Planted as a string wherever there is a number.
    let planted = event.raw.replace(":1", &format!(":\"x {SECRET} y\""));
    if let Ok(event) = Event::parse(planted.as_bytes())
        && event.input.is_some_and(|input| input.contains(SECRET))
        && let Ok(Protected::Changed(text)) = SHIELD.protect(&event, &mut hits)
    {
        let changed = Event::parse(text.as_bytes()).expect("what is left is a decision");
        assert!(!changed.input.unwrap_or_default().contains(SECRET), "{text}");
    }
    // As a policy's answer: rules that come from anywhere.
    if let Some(input) = event.input.and_then(|input| serde_json::from_str(input).ok())
        && let Ok(masks) = opa::masks(&input)
    {
        let mut node = Node::Raw(event.raw);
        opa::apply(&masks, &mut node, &mut Taken::default());
        serde_json::from_str::<&serde_json::value::RawValue>(&node.to_text())
            .expect("what is left is JSON");
    }
});
