//! How what is said fits the terminal: tables, sentences, bars.

use std::fmt::Write as _;
use std::io::IsTerminal;

use crate::config::secrets::{Outside, Real};

/// How wide a line may be: as the terminal is, or COLUMNS says, or what fits everywhere.
pub fn columns() -> usize {
    let terminal = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
    let told = || Real.env("COLUMNS")?.trim().parse().ok();
    terminal.filter(|width| *width > 0).or_else(told).map_or(80, |width| width.max(40))
}

/// How wide sentences may be. What is piped keeps each on its line, to be searched.
pub fn sentence_columns() -> usize {
    if std::io::stdout().is_terminal() { columns() } else { usize::MAX }
}

/// The same of standard error.
pub fn error_columns() -> usize {
    if std::io::stderr().is_terminal() { columns() } else { usize::MAX }
}

/// Says a sentence on standard output.
pub fn say(sentence: &str) {
    anstream::println!("{}", wrapped(sentence, 4, sentence_columns()));
}

/// Says a sentence on standard error.
pub fn say_aside(sentence: &str) {
    anstream::eprintln!("{}", wrapped(sentence, 4, error_columns()));
}

/// Says what is to be known beside what was asked for.
pub fn note(what: &str) {
    say_aside(&format!("note: {what}"));
}

/// Lines, of which those that are too long are wrapped. Not those that are indented: they are wrapped, or are commands to be copied.
pub fn lines(text: &str, columns: usize) -> String {
    let line = |line: &str| match line.starts_with(' ') {
        true => format!("{line}\n"),
        false => format!("{}\n", wrapped(line, 4, columns)),
    };
    text.lines().map(line).collect()
}

/// Rows with aligned columns, however wide.
pub fn table(rows: &[Vec<String>]) -> String {
    aligned(rows, &widths(rows), "  ")
}

/// Rows with aligned columns if they fit; otherwise each row with the names of its columns, in as many lines as it needs. Nothing is cut.
pub fn fitted(rows: &[Vec<String>], columns: usize) -> String {
    let widths = widths(rows);
    for gap in ["  ", " "] {
        let whole = widths.iter().sum::<usize>() + gap.len() * widths.len().saturating_sub(1);
        if whole <= columns {
            return aligned(rows, &widths, gap);
        }
    }
    let Some((heads, rows)) = rows.split_first() else { return String::new() };
    let mut out = String::new();
    for row in rows {
        let named = row.iter().zip(heads).enumerate().filter(|(_, (cell, _))| !cell.is_empty());
        let pairs: Vec<String> = named
            .map(|(i, (cell, head))| match i {
                0 => cell.clone(),
                _ => format!("{} {cell}", head.to_lowercase()),
            })
            // Of several things in one cell each may go on a line of its own.
            .map(|pair| match seen(&pair) + 4 > columns {
                true => wrapped(&pair, 4, columns.saturating_sub(4)),
                false => pair,
            })
            .collect();
        let _ = writeln!(out, "{}", flowing(&pairs, 4, columns));
    }
    out
}

fn widths(rows: &[Vec<String>]) -> Vec<usize> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |i: usize| rows.iter().filter_map(|row| row.get(i)).map(|cell| seen(cell)).max();
    (0..columns).map(|i| width(i).unwrap_or(0)).collect()
}

fn aligned(rows: &[Vec<String>], widths: &[usize], gap: &str) -> String {
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row
            .iter()
            .enumerate()
            .map(|(i, cell)| format!("{cell:<width$}", width = widths[i]))
            .collect();
        format!("{}\n", cells.join(gap).trim_end())
    };
    rows.iter().map(line).collect()
}

/// So many columns text takes: colours take none.
fn seen(text: &str) -> usize {
    anstream::adapter::strip_str(text).to_string().chars().count()
}

/// Parts beside each other, two spaces apart, as many as fit on a line; further lines begin with so many spaces.
pub fn flowing(parts: &[String], indent: usize, columns: usize) -> String {
    joined(parts.iter().map(String::as_str), "  ", indent, columns)
}

/// A text whose further lines begin with so many spaces. A word that is too long for a line is not broken: it may be an address.
pub fn wrapped(text: &str, indent: usize, columns: usize) -> String {
    let begins = text.len() - text.trim_start_matches(' ').len();
    let (space, text) = text.split_at(begins);
    // The spaces that it begins with stay; only those between words may become line ends.
    let mut words = text.split(' ');
    let first = format!("{space}{}", words.next().unwrap_or_default());
    joined(std::iter::once(first.as_str()).chain(words), " ", indent, columns)
}

fn joined<'t>(
    parts: impl Iterator<Item = &'t str>,
    gap: &str,
    indent: usize,
    columns: usize,
) -> String {
    let mut out = String::new();
    let mut at = 0;
    for part in parts {
        let width = seen(part);
        if at == 0 {
            at = width;
        } else if at + gap.len() + width <= columns {
            out.push_str(gap);
            at += gap.len() + width;
        } else {
            let _ = write!(out, "\n{:indent$}", "");
            at = indent + width;
        }
        out.push_str(part);
    }
    out
}

/// A bar for what is read of a topic, or sent. On standard error, and only if that is a terminal.
pub fn progress(total: u64, what: &'static str) -> indicatif::ProgressBar {
    let style = style("{msg} {wide_bar} {pos}/{len} {rate} {eta}");
    indicatif::ProgressBar::new(total).with_style(style).with_message(what)
}

/// A bar's style, in which {rate} is how many a second.
pub fn style(template: &str) -> indicatif::ProgressStyle {
    indicatif::ProgressStyle::with_template(template)
        .unwrap_or_else(|_| indicatif::ProgressStyle::default_bar())
        .with_key("rate", |state: &indicatif::ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = out.write_str(&rate(state.per_sec()));
        })
}

/// How many a second, with one decimal where that says anything.
pub fn rate(a_second: f64) -> String {
    if a_second < 100.0 {
        format!("{a_second:.1}/s")
    } else {
        format!("{}/s", indicatif::HumanCount(a_second.round() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(rows: &[&[&str]]) -> Vec<Vec<String>> {
        rows.iter().map(|row| row.iter().map(|cell| (*cell).to_owned()).collect()).collect()
    }

    #[test]
    fn a_table_fits_or_becomes_lines_that_hold_everything() {
        let rows =
            rows(&[&["SINK", "EXPECTED", "ODD"], &["loki", "12", ""], &["search", "7", "x y"]]);
        assert_eq!(fitted(&rows, 80), "SINK    EXPECTED  ODD\nloki    12\nsearch  7         x y\n");
        assert_eq!(fitted(&rows, 20), "SINK   EXPECTED ODD\nloki   12\nsearch 7        x y\n");
        assert_eq!(fitted(&rows, 18), "loki  expected 12\nsearch  expected 7\n    odd x y\n");
        assert_eq!(fitted(&rows[..2], 11), "loki\n    expected\n    12\n");
        assert_eq!(fitted(&[], 20), "");
    }

    #[test]
    fn sentences_are_wrapped_between_words_and_colours_take_no_room() {
        assert_eq!(wrapped("ab cd ef", 2, 5), "ab cd\n  ef");
        assert_eq!(wrapped("  ab cd ef", 4, 7), "  ab cd\n    ef");
        assert_eq!(wrapped("see http://somewhere/long", 2, 10), "see\n  http://somewhere/long");
        assert_eq!(wrapped("\u{1b}[1mab\u{1b}[0m cd", 0, 5), "\u{1b}[1mab\u{1b}[0m cd");
        assert_eq!(wrapped("all of it", 4, usize::MAX), "all of it");
    }

    #[test]
    fn of_lines_those_that_are_too_long_are_wrapped_and_commands_stay_whole() {
        let text = "ab cd ef\nA  B\n  docket why an-id a-file\n";
        assert_eq!(lines(text, 5), "ab cd\n    ef\nA  B\n  docket why an-id a-file\n");
        assert_eq!(lines(text, usize::MAX), text);
    }

    #[test]
    fn a_rate_has_at_most_one_decimal() {
        for (a_second, said) in
            [(0.0, "0.0/s"), (7.26, "7.3/s"), (129.79, "130/s"), (1297.9561, "1,298/s")]
        {
            assert_eq!(rate(a_second), said);
        }
    }
}
