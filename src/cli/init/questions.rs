//! What `docket init` asks. Each answer is checked when it is given, and asked for again with the reason.

use std::io::{BufRead, Write};

use super::{Wanted, address, odd, problem, says_no};
use crate::cli::CommandResult;

/// Where decisions go if nobody names another place.
const FILE: &str = "decisions.ndjson";

/// Whether it can be done without.
#[derive(Clone, Copy)]
enum Need {
    No,
    /// Why not.
    Yes(&'static str),
}

/// Asks for one thing after the other; an empty answer is the default, or none.
pub(super) fn asked(
    brokers: &str,
    input: &mut impl BufRead,
    out: &mut impl Write,
) -> CommandResult<Wanted> {
    let mut asking = Asking { input, out, wanted: Wanted::default() };
    writeln!(asking.out, "An empty answer takes what stands in brackets.")?;
    asking.what_comes_in(brokers)?;
    asking.where_it_goes()?;
    let wanted = &mut asking.wanted;
    if !wanted.has_a_sink() {
        asking.a_file()?;
    }
    asking.wanted.unprotected = !asking.yes("Take secrets and personal data out of decisions?")?;
    asking.wanted.no_spikes = !asking.yes("Look for denial spikes?")?;
    Ok(asking.wanted)
}

struct Asking<'a, R, W> {
    input: &'a mut R,
    out: &'a mut W,
    wanted: Wanted,
}

impl<R: BufRead, W: Write> Asking<'_, R, W> {
    fn what_comes_in(&mut self, brokers: &str) -> CommandResult {
        self.ask(
            &format!("Kafka's bootstrap servers? [{brokers}]"),
            Need::Yes(
                "docket reads from Kafka, and keeps there what it reads: host:port,host:port",
            ),
            |wanted, text| {
                wanted.brokers = Some(text.to_owned());
                Ok(())
            },
        )?;
        self.ask(
            "Topics with OPA's decision logs, separated by commas? [opa-decisions]",
            Need::Yes(
                "at least one topic is needed; where OPA uploads to docket, docket writes to it",
            ),
            |wanted, text| {
                wanted.source = text.split(',').map(|topic| topic.trim().to_owned()).collect();
                wanted.source.iter().try_for_each(|name| topic(name))
            },
        )?;
        self.ask(
            "Shall OPA upload to docket itself? At which address, such as 0.0.0.0:8443? [no]",
            Need::No,
            |wanted, text| {
                wanted.door = Some(text.to_owned());
                Ok(())
            },
        )
    }

    fn where_it_goes(&mut self) -> CommandResult {
        self.url(
            ("Traces, to which OTLP endpoint, such as http://localhost:4317? [none]", 4317),
            |wanted| &mut wanted.otlp,
        )?;
        if self.wanted.otlp.is_some() {
            self.url(
                ("Where they are found: Jaeger's or Tempo's URL, such as http://localhost:16686? [none: docket verify leaves them out]", 16686),
                |wanted| &mut wanted.traces,
            )?;
        }
        self.url(("Loki's URL, such as http://localhost:3100? [none]", 3100), |wanted| {
            &mut wanted.loki
        })?;
        self.url(("VictoriaLogs' URL, such as http://localhost:9428? [none]", 9428), |wanted| {
            &mut wanted.victorialogs
        })?;
        self.url(
            ("Elasticsearch's or OpenSearch's URL, such as http://localhost:9200? [none]", 9200),
            |wanted| &mut wanted.elasticsearch,
        )?;
        self.ask("CloudWatch's log group? [none]", Need::No, |wanted, text| {
            wanted.cloudwatch = Some(text.to_owned());
            Ok(())
        })?;
        self.wanted.metrics = self.yes("Prometheus metrics on docket's admin port?")?;
        if self.wanted.metrics {
            self.url(
                ("The URL of that Prometheus, such as http://localhost:9090? [none: docket verify leaves its counts out]", 9090),
                |wanted| &mut wanted.prometheus,
            )?;
        }
        Ok(())
    }

    /// Where nothing else takes decisions, a file does.
    fn a_file(&mut self) -> CommandResult {
        writeln!(self.out, "  Nothing takes the decisions yet.")?;
        self.ask(
            &format!("A file to write them to, one a line? [{FILE}]"),
            Need::Yes("at least one sink is needed; to begin with, a file"),
            |wanted, text| {
                wanted.out = Some(text.into());
                Ok(())
            },
        )?;
        self.wanted.out.get_or_insert_with(|| FILE.into());
        Ok(())
    }

    fn url(
        &mut self,
        (question, port): (&str, u16),
        place: fn(&mut Wanted) -> &mut Option<String>,
    ) -> CommandResult {
        self.ask(question, Need::No, |wanted, text| {
            *place(wanted) = Some(address(text, port)?);
            Ok(())
        })?;
        let url = place(&mut self.wanted).clone();
        if let Some(why) = url.and_then(|url| odd::odd(&url, port)) {
            writeln!(self.out, "  It is taken as it is; but {why}.")?;
        }
        Ok(())
    }

    /// Asks until the answer is one that a pipeline file can hold.
    fn ask(
        &mut self,
        question: &str,
        need: Need,
        set: impl Fn(&mut Wanted, &str) -> Result<(), String>,
    ) -> CommandResult {
        loop {
            let answer = self.line(question)?;
            let why = match need {
                _ if answer.is_empty() => return Ok(()),
                Need::No if says_no(&answer) => return Ok(()),
                Need::Yes(why) if says_no(&answer) => why.to_owned(),
                _ if says_yes(&answer) => "what is it? No is an answer, too".to_owned(),
                _ => {
                    let mut wanted = self.wanted.clone();
                    match set(&mut wanted, &answer).and_then(|()| problem(&wanted)) {
                        Ok(()) => {
                            self.wanted = wanted;
                            return Ok(());
                        }
                        Err(why) if why.starts_with(&format!("{answer:?} ")) => why,
                        Err(why) => format!("{answer:?} can't be: {why}"),
                    }
                }
            };
            writeln!(self.out, "  {why}")?;
        }
    }

    fn yes(&mut self, question: &str) -> CommandResult<bool> {
        loop {
            let answer = self.line(&format!("{question} [yes]"))?;
            if answer.is_empty() || says_yes(&answer) {
                return Ok(true);
            }
            if says_no(&answer) {
                return Ok(false);
            }
            writeln!(self.out, "  {answer:?} is neither yes nor no")?;
        }
    }

    fn line(&mut self, question: &str) -> CommandResult<String> {
        write!(self.out, "{question} ")?;
        self.out.flush()?;
        let mut line = String::new();
        if self.input.read_line(&mut line)? == 0 {
            return Err("\nthe answers ended before the questions did; nothing is written".into());
        }
        Ok(line.trim().to_owned())
    }
}

fn says_yes(answer: &str) -> bool {
    ["y", "yes", "true", "ok"].iter().any(|yes| answer.eq_ignore_ascii_case(yes))
}

/// As Kafka has them.
fn topic(name: &str) -> Result<(), String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if name.is_empty() || name.len() > 249 || !name.chars().all(fits) || [".", ".."].contains(&name)
    {
        return Err(
            "a topic's name has letters, digits, dots, hyphens and underscores, at most 249".into(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of answers, and what was shown.
    fn answered(answers: &[&str]) -> (CommandResult<Wanted>, String) {
        let (answers, mut shown) = (answers.join("\n") + "\n", Vec::new());
        let wanted = asked("k:9", &mut answers.as_bytes(), &mut shown);
        (wanted, String::from_utf8(shown).unwrap())
    }

    #[test]
    fn answers_are_taken_and_an_empty_one_is_the_default() {
        let (wanted, shown) =
            answered(&["kafka:9092", "", "", "", "http://loki:3100", "", "", "", "", "", "no", ""]);
        let expected = Wanted {
            brokers: Some("kafka:9092".into()),
            loki: Some("http://loki:3100".into()),
            metrics: true,
            unprotected: true,
            ..Wanted::default()
        };
        assert_eq!(wanted.unwrap(), expected);
        assert!(shown.contains("servers? [k:9]") && shown.contains("Loki's URL"), "{shown}");
    }

    #[test]
    fn an_address_that_looks_like_that_of_another_server_is_told_at_once() {
        let (wanted, shown) = answered(&[
            "",
            "",
            "",
            "tempo:4317",
            "localhost:4317",
            "jaeger:3100",
            "",
            "",
            "",
            "no",
            "",
            "",
        ]);
        assert_eq!(wanted.unwrap().loki.as_deref(), Some("http://jaeger:3100"), "{shown}");
        let told: Vec<&str> =
            shown.lines().filter(|line| line.contains("taken as it is")).collect();
        assert!(told.len() == 2 && told[0].contains("; but 4317 is the usual port of "), "{shown}");
        assert!(told[1].contains("jaeger sounds like"), "{shown}");
    }

    #[test]
    fn every_word_for_no_is_no_address() {
        for no in ["no", "none", "-", "skip", "n", "NO"] {
            let (wanted, shown) = answered(&["", "", no, no, no, no, no, no, "yes", no, no, no]);
            let expected =
                Wanted { metrics: true, unprotected: true, no_spikes: true, ..Wanted::default() };
            assert_eq!(wanted.unwrap(), expected, "{no}: {shown}");
        }
    }

    #[test]
    fn an_answer_that_can_not_be_is_asked_again_with_the_reason_and_the_others_stay() {
        let (wanted, shown) = answered(&[
            "kafka:99999",
            "none",
            "kafka:9092",
            "my topic",
            "a,a",
            "a,b",
            "yes",
            "localhost",
            "0.0.0.0:8443",
            "ftp://tempo",
            "tempo",
            "tempo:4317",
            "http://tempo:99999",
            "-",
            "yes",
            "loki:3100",
            "no",
            "no",
            "no",
            "perhaps",
            "y",
            "http://",
            "prometheus:9090",
            "",
            "",
        ]);
        let expected = Wanted {
            brokers: Some("kafka:9092".into()),
            source: vec!["a".into(), "b".into()],
            door: Some("0.0.0.0:8443".into()),
            otlp: Some("http://tempo:4317".into()),
            loki: Some("http://loki:3100".into()),
            metrics: true,
            prometheus: Some("http://prometheus:9090".into()),
            ..Wanted::default()
        };
        assert_eq!(wanted.unwrap(), expected, "{shown}");
        for why in [
            "\"kafka:99999\" can't be: port 99999 is out of range",
            "  docket reads from Kafka",
            "a topic's name has letters",
            "the topic \"a\" is already a source",
            "what is it?",
            "ftp is not http or https; write it like http://localhost:4317",
            "\"tempo\" can't be: that is no URL; write it like http://localhost:4317",
            "\"perhaps\" is neither yes nor no",
        ] {
            assert!(shown.contains(why), "{why}: {shown}");
        }
        assert_eq!(shown.matches("Kafka's bootstrap servers?").count(), 3, "{shown}");
    }

    #[test]
    fn without_any_sink_a_file_takes_them_and_nothing_is_lost() {
        let before = ["", "", "", "", "", "", "", "", "no"];
        for (answer, file) in [("", "decisions.ndjson"), ("out.ndjson", "out.ndjson")] {
            let (wanted, shown) = answered(&[&before[..], &["none", answer, "", ""]].concat());
            assert_eq!(wanted.unwrap().out, Some(file.into()), "{shown}");
            assert!(shown.contains("at least one sink is needed"), "{shown}");
        }
    }

    #[test]
    fn answers_that_end_are_no_consent() {
        let (wanted, _) = answered(&["kafka:9092", ""]);
        assert!(wanted.unwrap_err().to_string().contains("nothing is written"));
    }
}
