//! What a review comes to, in sentences: who runs out first and when, and what the numbers don't say by themselves.

use serde::Serialize;

use super::aside::LeftOut;
use super::enough::{self, lasting};
use super::fit::Trend;
use super::forecast::{self, Forecast};
use super::level::Changed;
use super::numbers::{DAY, SECOND, counted, human};
use super::{Part, Review, Spare};
use crate::decision::time::{self, Nanos};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// There is too little for some numbers; the sentence says what would be enough.
    TooLittle,
    /// It covers less than a day.
    TooShort,
    /// Decisions were left out, since they are far from all others.
    LeftOut,
    /// The load changed at once.
    Changed,
    /// The first service whose OPAs its busiest minute will fill, or that none will.
    RunsOut,
    /// A service that can't do without one of its OPAs.
    NoSpare,
    /// An OPA whose decisions take longer when it is busy.
    NearItsLimit,
    /// A policy that waits for somebody else.
    Waits,
    /// The newest decision is old.
    Behind,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Conclusion {
    pub kind: Kind,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service: String,
    /// The day on which it is expected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub day: Option<String>,
    pub sentence: String,
}

/// Longer by so much in busier hours, an OPA is near its limit.
const SLOWER: f64 = 1.25;
/// A policy waits if so much of its time is waiting.
const WAITS: f64 = 0.3;
/// The newest decision is old after so long.
const OLD: Nanos = 10 * 60 * SECOND;
/// So many of a kind are told.
const MOST: usize = 5;

/// `current` says that the review goes on to the present.
pub fn conclusions(review: &Review, now: Nanos, current: bool) -> Vec<Conclusion> {
    let mut all = Vec::new();
    let missing = enough::missing(review);
    if !missing.is_empty() {
        let sentence = format!(
            "{} over {}: that is too little for some conclusions, which are left out. {}.",
            counted(review.total.decisions, "decision"),
            lasting(review.seconds as Nanos * SECOND),
            capital(&missing.join("; "))
        );
        all.push(of(Kind::TooLittle, "", sentence));
    }
    all.extend(review.read.left_out.as_ref().map(left_out));
    let whole = review.seconds as Nanos * SECOND;
    if (enough::SPAN * SECOND..DAY).contains(&whole) {
        let sentence = format!(
            "This is of {} only: the busiest minute of a day or a week need not be in it, and what follows holds for that time.",
            lasting(whole)
        );
        all.push(of(Kind::TooShort, "", sentence));
    }
    if current && now - review.to > OLD {
        let sentence = format!(
            "The newest decision is {} old: nothing was asked since, or intake is behind (docket top shows its lag), and then the last hours are not whole.",
            lasting(now - review.to)
        );
        all.push(Conclusion { kind: Kind::Behind, service: String::new(), day: None, sentence });
    }
    all.extend(changes(review));
    all.extend(runs_out(review));
    let short = review.spare.iter().filter_map(|s| Some((s, s.without_one?)));
    for (spare, without) in short.filter(|(_, without)| *without < 1.0).take(MOST) {
        let sentence = format!(
            "{} can't do without one of its {} OPAs: the busiest minute would need {} times what the others have.",
            spare.service,
            spare.opas,
            human(1.0 / without)
        );
        all.push(of(Kind::NoSpare, &spare.service, sentence));
    }
    let slower = |part: &Part| part.busy.and_then(|b| b.slower_when_busy).unwrap_or_default();
    let mut slow: Vec<&Part> = review.opas.iter().filter(|p| slower(p) >= SLOWER).collect();
    slow.sort_by(|a, b| slower(b).total_cmp(&slower(a)));
    for part in slow.into_iter().take(MOST) {
        let sentence = format!(
            "{} of {} takes {} times as long for a decision in its busier hours: it is nearer to its limit than its headroom says.",
            part.name,
            part.service,
            human(slower(part))
        );
        all.push(of(Kind::NearItsLimit, &part.service, sentence));
    }
    let waits = |part: &Part| part.busy.map(|b| b.waiting).unwrap_or_default();
    let mut waiting: Vec<&Part> = review.policies.iter().filter(|p| waits(p) >= WAITS).collect();
    waiting.sort_by(|a, b| waits(b).total_cmp(&waits(a)));
    for part in waiting.into_iter().take(MOST) {
        let sentence = format!(
            "{} of {} spends {:.0} % of its time waiting for answers (http.send, DNS): that makes callers wait, and is not counted as load.",
            part.name,
            part.service,
            100.0 * waits(part)
        );
        all.push(of(Kind::Waits, &part.service, sentence));
    }
    all
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |c| c.to_uppercase().chain(chars).collect())
}

fn of(kind: Kind, service: &str, sentence: String) -> Conclusion {
    Conclusion { kind, service: service.to_owned(), day: None, sentence }
}

fn left_out(of: &LeftOut) -> Conclusion {
    let day = |at: Nanos| time::format(at)[..10].to_owned();
    let (from, to) = (day(of.from), day(of.to));
    let when = if from == to { from } else { format!("{from} to {to}") };
    let (was, apart) = match of.decisions {
        1 => ("was left out: its time is", ""),
        _ => ("were left out: their times are", " or more"),
    };
    let sentence = format!(
        "{} of {when} {was} {}{apart} from all others, as by a wrong clock.",
        counted(of.decisions, "decision"),
        lasting(of.apart)
    );
    self::of(Kind::LeftOut, "", sentence)
}

/// Which services' load changed at once; if none's, but that of all, that.
fn changes(review: &Review) -> Vec<Conclusion> {
    let all = review.spare.iter();
    let of_services = all.filter_map(|s| Some((s.service.as_str(), s.changed.as_ref()?)));
    let mut changes: Vec<(&str, &Changed)> = of_services.take(MOST).collect();
    if changes.is_empty() {
        changes.extend(review.changed.as_ref().map(|changed| ("", changed)));
    }
    changes.into_iter().map(|(service, changed)| change(service, changed)).collect()
}

fn change(service: &str, changed: &Changed) -> Conclusion {
    let name = if service.is_empty() { "all services together" } else { service };
    let (day, before, after) = (&changed.day, human(changed.before), human(changed.after));
    let level = if changed.after > changed.before { "rose" } else { "fell" };
    let then = if changed.days < forecast::FEWEST {
        format!(
            "how that grows takes {} whole days of the new level to say, and there are {}",
            forecast::FEWEST,
            changed.days
        )
    } else {
        "growth and headroom are of the days since".to_owned()
    };
    let sentence = format!(
        "The load of {name} {level} from {before} decisions a day to {after} on {day}; {then}."
    );
    of(Kind::Changed, service, sentence)
}

/// A service's growth, and whose that is: its own, where the review has enough of its days, otherwise that of all, unless the level is new.
fn growth<'r>(review: &'r Review, spare: &'r Spare) -> Option<(&'r Forecast, &'static str)> {
    let new = spare.changed.is_some();
    let all = review.forecast.as_ref().filter(|_| !new).map(|all| (all, "the load of all"));
    spare.forecast.as_ref().map(|own| (own, "it")).or(all)
}

/// In how many days a busiest minute takes so many times what it takes now.
fn until(times: f64, growth: &Forecast) -> f64 {
    let a_week = growth.growth_per_week;
    7.0 * match growth.trend {
        Trend::Linear => (times - 1.0) / a_week,
        Trend::Exponential => times.ln() / a_week.ln_1p(),
    }
}

/// What has to go on for that, and how far such forecasts are off.
fn going_on(whose: &str, growth: &Forecast) -> String {
    let a_week = 100.0 * growth.growth_per_week;
    let how = match growth.trend {
        Trend::Linear => {
            format!("along a straight line, by {a_week:.1} % of its present load a week")
        }
        Trend::Exponential => format!("by {a_week:.1} % a week"),
    };
    let error = growth.error.map_or_else(String::new, |error| {
        format!(" (such forecasts were off by {:.0} % on average)", 100.0 * error)
    });
    format!("if {whose} goes on growing {how}{error}")
}

fn runs_out(review: &Review) -> Option<Conclusion> {
    // In how many days its busiest minute takes all that it has; at once, if it does now.
    let days = |spare: &Spare, growth: Option<(&Forecast, &str)>| match growth {
        _ if spare.headroom <= 1.0 => Some(0.0),
        Some((f, _)) if f.growth_per_week > 0.0 => Some(until(spare.headroom, f)),
        _ => None,
    };
    let growths: Vec<(&Spare, Option<(&Forecast, &str)>)> =
        review.spare.iter().map(|s| (s, growth(review, s))).collect();
    let soonest = growths
        .iter()
        .filter_map(|(spare, growth)| Some((days(spare, *growth)?, *spare, *growth)))
        .min_by(|a, b| a.0.total_cmp(&b.0));
    let Some((in_days, spare, growth)) = soonest else {
        let (spare, growth) = growths.first()?;
        let why = match growth {
            Some(_) => "nothing grows".to_owned(),
            None if spare.changed.is_some() => {
                format!(
                    "how it grows takes {} whole days of the new level to say",
                    forecast::FEWEST
                )
            }
            None => format!(
                "how it grows takes {} whole days to say, and there {}",
                forecast::FEWEST,
                match review.days.iter().filter(|d| d.whole).count() {
                    1 => "is 1".to_owned(),
                    n => format!("are {n}"),
                }
            ),
        };
        let sentence = format!(
            "{} has the least headroom: its OPAs could take {} times its busiest minute. When it runs out can't be said: {why}.",
            spare.service,
            human(spare.headroom)
        );
        return Some(of(Kind::RunsOut, &spare.service, sentence));
    };
    let service = &spare.service;
    if in_days <= 0.0 {
        let sentence = format!(
            "{service} has run out: its busiest minute needs {} times what its OPAs have.",
            human(1.0 / spare.headroom.max(f64::MIN_POSITIVE))
        );
        return Some(of(Kind::RunsOut, service, sentence));
    }
    let (growth, whose) = growth?;
    // Of others it is not known when they run out.
    let first = if growths.iter().all(|(_, growth)| growth.is_some()) {
        "first"
    } else {
        "first of those whose growth is known"
    };
    let going_on = going_on(whose, growth);
    let could = format!("its OPAs could take {} times its busiest minute", human(spare.headroom));
    if in_days > growth.days_ahead as f64 {
        let ahead = counted(growth.days_ahead, "day");
        let sentence =
            format!("{service} runs out {first}, but not within {ahead}, {going_on}: {could}.");
        return Some(of(Kind::RunsOut, service, sentence));
    }
    let day = time::format(review.to + (in_days * DAY as f64) as Nanos)[..10].to_owned();
    let sentence = format!("{service} runs out {first}, around {day}, {going_on}: {could}.");
    Some(Conclusion { kind: Kind::RunsOut, service: service.clone(), day: Some(day), sentence })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::count::Counter;
    use super::super::numbers::HOUR;
    use super::super::{Asked, Read, review};
    use super::*;
    use crate::decision::event::Event;
    use crate::decision::record::{self, Record, Rules};

    /// 2026-01-05, a Monday.
    const START: Nanos = 1_767_571_200 * SECOND;

    struct Made {
        service: &'static str,
        opa: usize,
        at: Nanos,
        nanos: u64,
        waits: u64,
    }

    /// A review of days on which each makes as many decisions as `many` says of its number.
    fn reviewed(days: i64, cores: f64, of: &dyn Fn(i64) -> Vec<Made>) -> Review {
        let mut counter = Counter::new(START..START + 400 * DAY);
        for day in 0..days {
            for (n, made) in of(day).into_iter().enumerate() {
                let text = format!(
                    r#"{{"decision_id":"{day}-{n}-{}","path":"a/allow","result":true,"timestamp":"{}","labels":{{"app":"{}","id":"opa-{}"}},"metrics":{{"timer_server_handler_ns":{},"timer_rego_builtin_http_send_ns":{}}}}}"#,
                    made.service,
                    time::format(START + day * DAY + made.at),
                    made.service,
                    made.opa,
                    made.nanos,
                    made.waits
                );
                let (event, mut out) = (Event::parse(text.as_bytes()).unwrap(), Vec::new());
                record::write(&event, &[], None, &Rules::default(), &mut out);
                counter.add(&Record::parse(&out).unwrap());
            }
        }
        let now = START + days * DAY;
        let (pipeline, read) = ("p".into(), Read::default());
        let (history, volumes) = (Default::default(), Vec::new());
        let asked =
            Asked { pipeline, cores, ahead: 60, history, volumes, read, now, current: false };
        review(counter, asked).unwrap()
    }

    /// All day long, `n` decisions of 600 ms, and a quarter of them in one minute.
    fn steady(service: &'static str, n: i64, opas: usize) -> Vec<Made> {
        let at = |i: i64| if i * 4 < n { 0 } else { i * (DAY / n) };
        let made = |i: i64| Made {
            service,
            opa: i as usize % opas,
            at: at(i),
            nanos: 600_000_000,
            waits: 0,
        };
        (0..n).map(made).collect()
    }

    #[test]
    fn who_grows_runs_out_before_who_has_less_left() {
        let review = reviewed(28, 1.0, &|day| {
            // 100 decisions on the first day, 10 more each day, a quarter of them in its busiest minute: 0.925 cores of two.
            let mut all = steady("grows", 100 + 10 * day, 2);
            all.extend(steady("stays", 260, 1));
            all
        });
        let first = &review.conclusions[0];
        assert_eq!((first.kind, first.service.as_str()), (Kind::RunsOut, "grows"), "{first:?}");
        // It grows by 70 of 370 a week, so twice as much, and 0.15 more, is there 42 days later: 2026-03-16.
        assert!(first.sentence.starts_with("grows runs out first"), "{first:?}");
        let spare = review.spare.iter().find(|s| s.service == "grows").unwrap();
        let days = 7.0 * (spare.headroom - 1.0) / (70.0 / 370.0);
        assert!((20.0..50.0).contains(&days), "{days}");
        let expected = time::format(review.to + (days * DAY as f64) as Nanos);
        match &first.day {
            Some(day) => assert_eq!(day[..7], expected[..7], "{first:?}"),
            None => assert!(days > 27.0 && first.sentence.contains("not within 28 days")),
        }
        assert!(
            review.conclusions.iter().all(|c| c.kind != Kind::NoSpare),
            "{:?}",
            review.conclusions
        );
    }

    /// What grows by a part each week runs out much sooner than along a line, and the sentence says along what.
    #[test]
    fn what_compounds_runs_out_sooner_and_is_said_to() {
        let grown = |day: i64| 100.0 * 1.1f64.powf(day as f64 / 7.0);
        let review = reviewed(42, 2.0, &|day| steady("shop", grown(day).round() as i64, 2));
        let first = &review.conclusions[0];
        assert_eq!(first.kind, Kind::RunsOut);
        let forecast = review.forecast.as_ref().unwrap();
        assert_eq!(forecast.trend, Trend::Exponential, "{forecast:?}");
        let said =
            format!("if it goes on growing by {:.1} % a week (", 100.0 * forecast.growth_per_week);
        assert!(first.sentence.contains(&said), "{first:?}");
        // Twice as much takes 7.3 weeks; along a line it would take ten.
        let days = until(2.0, forecast);
        assert!((48.0..55.0).contains(&days), "{days}");

        let review = reviewed(42, 2.0, &|day| steady("shop", 100 + 4 * day, 2));
        let said = &review.conclusions[0].sentence;
        assert!(said.contains("if it goes on growing along a straight line, by "), "{said}");
        let json = serde_json::to_value(&review).unwrap();
        assert_eq!(json["forecast"]["trend"], "linear", "{json}");
    }

    #[test]
    fn what_covers_seconds_says_so_first() {
        let review = reviewed(1, 1.0, &|_| steady("s", 1000, 2));
        let first = &review.conclusions[0];
        assert_eq!(first.kind, Kind::TooShort);
        assert!(first.sentence.starts_with("This is of "), "{first:?}");
        assert_eq!(lasting(25 * SECOND), "25 s");
        assert_eq!(review.conclusions.iter().filter(|c| c.kind == Kind::TooLittle).count(), 0);
        let review = reviewed(2, 1.0, &|_| steady("s", 100, 2));
        assert!(review.conclusions.iter().all(|c| c.kind != Kind::TooShort));
    }

    /// Nothing but counts is told of one decision, of some in seconds, or of many in seconds; and what would be enough.
    #[test]
    fn nothing_is_concluded_from_too_little() {
        let second = |at: Nanos| Made { service: "s", opa: 0, at, nanos: 900_000_000, waits: 0 };
        for (n, apart) in [(1, SECOND), (50, SECOND / 5), (2000, SECOND / 100), (99, DAY / 100)] {
            let review = reviewed(1, 1.0, &|_| (0..n).map(|i| second(i * apart)).collect());
            let little = &review.conclusions[0];
            assert_eq!(little.kind, Kind::TooLittle);
            let many = counted(n as u64, "decision");
            assert!(little.sentence.starts_with(&format!("{many} over ")), "{little:?}");
            assert!(
                little.sentence.contains("eadroom and cost need 100 decisions")
                    && little.sentence.contains("a forecast needs 14 whole days"),
                "{little:?}"
            );
            let others = review.conclusions.iter().filter(|c| c.kind != Kind::TooShort).count();
            assert_eq!(others, 1, "{:?}", review.conclusions);
            assert!(review.spare.is_empty() && review.forecast.is_none());
            let parts = [&review.services, &review.policies, &review.opas].into_iter().flatten();
            for part in parts.chain([&review.total]) {
                assert_eq!((part.busy, part.cost), (None, None), "{part:?}");
                assert_eq!(part.mean_per_second.is_some(), n == 99);
                let median = part.evaluation.as_ref().map(|e| e.p50_ns.is_some());
                assert!(median.is_none_or(|known| known == (n >= 20)), "{part:?}");
            }
            let json = serde_json::to_string(&review).unwrap();
            for word in ["headroom\"", "\"cost\"", "growth", "\"per_day\""] {
                assert!(!json.contains(word), "{word}: {json}");
            }
            let page = super::super::report::html(&review, START);
            assert!(page.contains("Headroom needs 100 decisions"), "{page}");
            assert!(!page.contains(" × "), "{page}");
        }
    }

    #[test]
    fn one_headroom_of_a_service_and_one_of_an_opa() {
        let review = reviewed(2, 1.0, &|_| steady("s", 400, 2));
        let json = serde_json::to_value(&review).unwrap();
        assert!(json["total"]["busy"].get("headroom").is_none());
        assert!(json["services"][0]["busy"].get("headroom").is_none(), "{json}");
        assert!(json["policies"][0]["busy"].get("headroom").is_none());
        assert!(json["opas"][0]["busy"]["headroom"].is_f64());
        assert!(json["spare"][0]["headroom"].is_f64());
    }

    #[test]
    fn what_has_run_out_what_can_spare_none_and_what_waits() {
        // The same twenty times a day, for ten days.
        let review = reviewed(10, 1.0, &|_| {
            let mut all = Vec::new();
            for hour in 0..20 {
                let minute = |service, opa, nanos, waits| Made {
                    service,
                    opa,
                    at: hour * HOUR,
                    nanos,
                    waits,
                };
                all.extend((0..3).map(|n| minute("full", n % 2, 60 * SECOND as u64, 0)));
                all.extend((0..3).map(|n| minute("tight", n % 2, 30 * SECOND as u64, 0)));
                all.push(minute("calls", 0, 900_000_000, 890_000_000));
            }
            all
        });
        let kinds: Vec<(Kind, &str)> =
            review.conclusions.iter().map(|c| (c.kind, c.service.as_str())).collect();
        assert_eq!(
            kinds,
            [
                (Kind::RunsOut, "full"),
                (Kind::NoSpare, "full"),
                (Kind::NoSpare, "tight"),
                (Kind::Waits, "calls")
            ]
        );
        let sentence = |at: usize| review.conclusions[at].sentence.as_str();
        assert_eq!(
            sentence(0),
            "full has run out: its busiest minute needs 1.5 times what its OPAs have."
        );
        assert!(
            sentence(2).contains("would need 1.5 times what the others have"),
            "{}",
            sentence(2)
        );
        assert!(sentence(3).contains("spends 99 % of its time waiting"), "{}", sentence(3));
    }
}
