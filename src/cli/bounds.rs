//! Stretches of a topic, as people say which: from when, until when.

use super::Exit;
use crate::clock;
use crate::decision::time;
use crate::log::scan::ScanBound;

/// A place in a topic: `start`, `end`, how long ago, or a time.
pub(super) fn bound(text: &str) -> Result<ScanBound, String> {
    match text {
        "start" | "earliest" | "beginning" => Ok(ScanBound::Start),
        "end" | "latest" | "now" => Ok(ScanBound::End),
        text => match time::parse(text) {
            Some(time) => Ok(ScanBound::At(time)),
            None => {
                let ago =
                    super::duration(text).map_err(|_| format!("{text:?} is neither start, end, a time such as 2026-11-24T12:00:00Z, nor how long ago: {}", crate::config::units::SPAN))?;
                Ok(ScanBound::At(clock::now().saturating_sub(time::nanos(ago))))
            }
        },
    }
}

/// Says that nothing can be in a stretch of time, for how it was asked for.
pub(super) fn window(from: ScanBound, until: ScanBound) -> Result<(), Exit> {
    let now = clock::now();
    let at = |bound| match bound {
        ScanBound::Start => time::Nanos::MIN,
        ScanBound::At(at) => at,
        ScanBound::End => now,
    };
    let told = |at| time::format(at).get(..19).unwrap_or_default().to_owned();
    let (from, until) = (at(from), at(until));
    if from >= now {
        return Err(Exit::wrong(format!(
            "nothing can be there from {}Z on: it is not over",
            told(from)
        )));
    }
    if from >= until {
        let (from, until) = (told(from), told(until));
        return Err(Exit::wrong(format!("the end, {until}Z, is not after the beginning, {from}Z")));
    }
    Ok(())
}
