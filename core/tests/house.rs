//! The house holds: a room uses only rooms that stand above it in the list of `lib.rs`, its modules use each other in no circle, and
//! nothing that does I/O is a dependency.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

#[path = "../../tests/support/floors.rs"]
mod floors;

#[test]
fn a_room_uses_only_rooms_below_it() {
    let house = floors::House::of(env!("CARGO_MANIFEST_DIR"));
    assert!(house.floors.len() > 8 && house.files.len() > 40);
    assert_eq!(house.upward(), Vec::<String>::new());
}

#[test]
fn modules_of_a_room_use_each_other_in_no_circle() {
    assert_eq!(floors::House::of(env!("CARGO_MANIFEST_DIR")).circles(), Vec::<String>::new());
}

#[test]
fn planted_arrows_are_found() {
    floors::planted();
}

#[test]
fn nothing_that_does_io_is_a_dependency() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let manifest = std::fs::read_to_string(path).unwrap();
    let dependencies = manifest.split("[dependencies]").nth(1).unwrap();
    let dependencies = dependencies.split("\n[").next().unwrap();
    for banned in ["tokio", "rdkafka", "reqwest", "axum", "hyper", "tonic", "rustls", "openssl"] {
        let found = dependencies.lines().find(|line| line.split([' ', '=']).next() == Some(banned));
        assert_eq!(found, None);
    }
}
