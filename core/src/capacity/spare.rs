//! What the OPAs of a service could take.

use serde::Serialize;

use super::count::Counter;
use super::days::{self, Day};
use super::forecast::{self, Forecast};
use super::level::{self, Changed};
use super::numbers::{DAY, HOUR};
use super::{Part, peak_minute};

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spare {
    pub service: String,
    /// OPAs that decided in the last day of the review.
    pub opas: usize,
    /// Of its busiest minute; if its load changed at once, and the new level is known long enough for a forecast, of that since.
    pub peak_minute_cores: f64,
    /// How many times the service's busiest minute its OPAs could take, all of them and without one.
    pub headroom: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without_one: Option<f64>,
    /// Its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forecast: Option<Forecast>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed: Option<Changed>,
}

/// Of each service, least headroom first.
pub fn spare(
    services: &[Part],
    counter: &Counter,
    days: &[Day],
    cores: f64,
    ahead: u64,
) -> Vec<Spare> {
    let since = counter.last.div_euclid(HOUR) - DAY / HOUR;
    let spare = |part: &Part| {
        let opas = counter
            .opas()
            .filter(|(service, _, load)| {
                *service == part.service && load.hours.range(since + 1..).next().is_some()
            })
            .count();
        let busy = part.busy.filter(|_| opas > 0)?;
        let (_, _, load) = counter.services().find(|(service, ..)| *service == part.service)?;
        // A service that is alone is all there is, and what is known of all is known of it.
        let known = match services.len() {
            1 => days::known(days),
            _ => days::of_service(days, &load.hours),
        };
        let changed = level::changed(&known);
        let present = changed.as_ref().filter(|c| c.days >= forecast::FEWEST);
        let from = present.map_or(i64::MIN, |c| c.number * (DAY / HOUR));
        let minute = peak_minute(load, counter.covered(), from);
        let peak_minute_cores = minute.per_second * busy.mean_ns / 1e9;
        let headroom = |opas: usize| opas as f64 * cores / peak_minute_cores;
        (peak_minute_cores > 0.0).then(|| Spare {
            service: part.service.clone(),
            opas,
            peak_minute_cores,
            headroom: headroom(opas),
            without_one: (opas > 1).then(|| headroom(opas - 1)),
            forecast: forecast::forecast(&known, ahead),
            changed,
        })
    };
    let mut all: Vec<Spare> = services.iter().filter_map(spare).collect();
    all.sort_by(|a, b| a.headroom.total_cmp(&b.headroom));
    all
}
