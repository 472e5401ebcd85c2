//! Comparisons of numbers that are as they are, however these are rounded: each is followed with how far it may be off, in regorus as in
//! OPA, and what is further apart than that is certain.

use serde_json::Value as Json;

use super::probe::Prober;
use super::rules::{Condition, Definition, Shape};
use super::texts::{call, is_word, json};
use super::values::attached;

/// What a calculation is off by at most, by its result: both calculate with 53 bits or more.
const ROUNDING: f64 = 4.0 * f64::EPSILON;
/// Whole numbers up to this are exact.
const EXACT: f64 = 9_007_199_254_740_992.0;
/// Variables that are made of variables.
const DEPTH: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq)]
struct Number {
    value: f64,
    off: f64,
}

impl Number {
    /// One that may be off by so much, and by the rounding of its last digits.
    fn new(value: f64, off: f64) -> Option<Number> {
        let exact = off == 0.0 && value.fract() == 0.0 && value.abs() <= EXACT;
        let off = if exact { 0.0 } else { off + value.abs() * ROUNDING };
        (value.is_finite() && off.is_finite()).then_some(Number { value, off })
    }

    fn with(self, sign: char, other: Number) -> Option<Number> {
        let (a, b) = (self, other);
        let (x, y) = (a.value.abs(), b.value.abs());
        match sign {
            '+' => Number::new(a.value + b.value, a.off + b.off),
            '-' => Number::new(a.value - b.value, a.off + b.off),
            '*' => Number::new(a.value * b.value, x * b.off + y * a.off + a.off * b.off),
            // What it is divided by may be nothing.
            '/' if y <= b.off => None,
            '/' => {
                let quotient = a.value / b.value;
                let rounded = if x % y == 0.0 { 0.0 } else { quotient.abs() * ROUNDING };
                Number::new(quotient, rounded + (a.off + quotient.abs() * b.off) / (y - b.off))
            }
            _ => None,
        }
    }
}

impl Prober<'_> {
    /// Whether a condition compares numbers of which it is certain how they compare.
    pub fn is_certain(&self, definition: &Definition, before: &[Condition], text: &str) -> bool {
        let text = text.strip_prefix("not ").unwrap_or(text);
        let number = |side: &str| Sum { prober: self, definition, before, depth: 0 }.of(side);
        let Some((left, right)) = sides(text) else { return false };
        let (Some(left), Some(right)) = (number(left), number(right)) else { return false };
        let off = left.off + right.off;
        off == 0.0 || (left.value - right.value).abs() > 2.0 * off
    }
}

/// What stands on each side of the sign of a comparison.
fn sides(text: &str) -> Option<(&str, &str)> {
    let at = text.find(['<', '>', '=', '!'])?;
    let rest = &text[at..];
    let signs = ["==", "!=", "<=", ">=", "<", ">"];
    let sign = signs.into_iter().find(|sign| rest.starts_with(sign))?;
    Some((&text[..at], &rest[sign.len()..]))
}

/// An expression behind the conditions that stand before it.
struct Sum<'p> {
    prober: &'p Prober<'p>,
    definition: &'p Definition,
    before: &'p [Condition],
    depth: usize,
}

/// What is left of its text.
struct Rest<'t>(&'t str);

impl Rest<'_> {
    fn sign(&mut self, signs: [char; 2]) -> Option<char> {
        self.0 = self.0.trim_start();
        let sign = self.0.chars().next().filter(|c| signs.contains(c))?;
        self.0 = &self.0[1..];
        Some(sign)
    }
}

impl Sum<'_> {
    /// Nothing where it is not known how far it may be off.
    fn of(&self, text: &str) -> Option<Number> {
        let mut rest = Rest(text);
        let sum = self.sum(&mut rest)?;
        rest.0.trim().is_empty().then_some(sum)
    }

    fn sum(&self, rest: &mut Rest<'_>) -> Option<Number> {
        let mut sum = self.product(rest)?;
        while let Some(sign) = rest.sign(['+', '-']) {
            sum = sum.with(sign, self.product(rest)?)?;
        }
        Some(sum)
    }

    fn product(&self, rest: &mut Rest<'_>) -> Option<Number> {
        let mut product = self.one(rest)?;
        while let Some(sign) = rest.sign(['*', '/']) {
            product = product.with(sign, self.one(rest)?)?;
        }
        Some(product)
    }

    fn one(&self, rest: &mut Rest<'_>) -> Option<Number> {
        if rest.sign(['-', '-']).is_some() {
            let one = self.one(rest)?;
            return Some(Number { value: -one.value, ..one });
        }
        if rest.sign(['(', '(']).is_some() {
            let sum = self.sum(rest)?;
            return rest.sign([')', ')']).map(|_| sum);
        }
        if rest.0.starts_with(|c: char| c.is_ascii_digit()) {
            let is_number = |c: char| c.is_ascii_digit() || c == '.';
            let end = rest.0.find(|c| !is_number(c)).unwrap_or(rest.0.len());
            let (number, behind) = rest.0.split_at(end);
            rest.0 = behind;
            return Number::new(number.parse().ok()?, 0.0);
        }
        let end = rest.0.find(|c| !is_word(c) && c != '.').unwrap_or(rest.0.len());
        let word = &rest.0[..end];
        if word.is_empty() {
            return None;
        }
        let atom = call(rest.0, 0, word).unwrap_or_else(|| attached(rest.0, 0, word));
        rest.0 = rest.0.get(atom.len()..)?;
        self.atom(&atom)
    }

    /// A variable by what it is made of; else what is the same in OPA.
    fn atom(&self, atom: &str) -> Option<Number> {
        let made = self.before.iter().enumerate().rev().find_map(|(at, condition)| {
            let behind = condition.raw.trim().strip_prefix(atom)?.trim_start();
            Some((at, behind.strip_prefix(":=")?))
        });
        if let Some((at, text)) = made
            && self.depth < DEPTH
        {
            return Sum { before: &self.before[..at], depth: self.depth + 1, ..*self }.of(text);
        }
        let Sum { prober, definition, before, .. } = *self;
        let input = prober.input_in(atom).into_iter().find(|(name, _)| name == atom);
        let value = match input {
            Some((_, there)) => there?,
            None if prober.inexact(definition, before, atom).is_empty() => {
                let before = before.last().map(|last| &*last.until_here);
                json(&prober.ask(definition, Shape::Complete, atom, before).ok()?)?
            }
            None => return None,
        };
        let Json::Number(number) = value else { return None };
        Number::new(number.as_f64()?, 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_followed_with_how_far_they_may_be_off() {
        let number = |value| Number::new(value, 0.0).unwrap();
        let exact = |value| Some(Number { value, off: 0.0 });
        assert_eq!(number(7.0).with('*', number(6.0)), exact(42.0));
        let third = number(1.0).with('/', number(3.0)).unwrap();
        assert!(third.off > 0.0 && third.off < 1e-14, "{third:?}");
        // What is left of two near numbers is off by as much as they were.
        let large = number(1.7e18).with('-', number(1.7e18)).unwrap();
        assert!(large.value == 0.0 && large.off > 1000.0, "{large:?}");
        assert_eq!(number(1.0).with('/', large), None);
        assert_eq!(sides("a[0] <= b"), Some(("a[0] ", " b")));
        assert_eq!(sides("a := b"), None);
    }
}
