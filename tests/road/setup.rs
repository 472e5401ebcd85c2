//! `docket setup`, where a source is not there and nobody can be asked.

use docket::log::mock::Mock;

use super::file_pipeline;
use super::support::{Place, docket, unhurried};

#[test]
fn without_a_terminal_setup_says_how_to_answer_what_it_would_ask() {
    let mock = Mock::start_brokers(3, &[("docket", 1), ("rejects", 1)]).unwrap();
    let place = Place::new("unasked");
    let pipeline = file_pipeline(&place, &mock, "");
    let told = |more: &[&str]| {
        let out = docket().arg("setup").arg(&pipeline).args(more).output().unwrap();
        (out.status.code(), String::from_utf8(out.stdout).unwrap(), unhurried(out.stderr))
    };
    let (code, _, errors) = told(&[]);
    assert_eq!(code, Some(2), "{errors}");
    assert!(
        errors.contains("The source source is not there. Nothing is created: ")
            && errors.contains("--yes creates it, --no-sources leaves it out"),
        "{errors}"
    );
    let (code, text, errors) = told(&["--no-sources"]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(text.contains("source source: not there, and not created"), "{text}");
    // With --yes it would be made, which this pipeline file does not allow.
    let (code, _, errors) = told(&["--yes"]);
    assert!(code == Some(1) && errors.contains("the topics source are missing"), "{errors}");
}
