//! YAML as a tree that knows where each thing stands.

use saphyr_parser::{Event, Input, Parser, ScalarStyle, Span};
use zeroize::Zeroizing;

use crate::config::secrets::{self, Outside};

/// Line and column, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

impl Place {
    fn of(span: &Span) -> Place {
        Place { line: span.start.line(), column: span.start.col() + 1 }
    }
}

#[derive(Debug, Clone)]
pub struct Node {
    pub at: Place,
    pub tree: Tree,
}

#[derive(Debug, Clone)]
pub enum Tree {
    Scalar(Scalar),
    Sequence(Vec<Node>),
    Mapping(Vec<(Key, Node)>),
}

#[derive(Debug, Clone)]
pub struct Key {
    pub at: Place,
    pub name: String,
}

#[derive(Debug, Clone)]
pub struct Scalar {
    /// As the file has it; what may be shown.
    pub text: String,
    /// With references resolved; not to be shown.
    pub value: Zeroizing<String>,
    /// Written without quotes.
    pub plain: bool,
    /// A reference was resolved in it.
    pub resolved: bool,
    /// Variables that are not set, and whose defaults stand in it.
    pub defaults: Vec<String>,
}

/// Something wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub at: Place,
    pub message: String,
    /// A secret may stand on its line, which is not quoted then.
    pub hidden: bool,
}

impl Problem {
    pub fn new(at: Place, message: String) -> Problem {
        Problem { at, message, hidden: false }
    }

    pub fn hidden(at: Place, message: String) -> Problem {
        Problem { at, message, hidden: true }
    }
}

/// Reads one YAML document. Problems with references and repeated keys are collected; a syntax error ends the reading.
pub fn read(text: &str, outside: &dyn Outside, problems: &mut Vec<Problem>) -> Option<Node> {
    let mut reader =
        Reader { parser: Parser::new_from_str(text), outside, problems, anchors: Vec::new() };
    match reader.document() {
        Ok(node) => node,
        Err(problem) => {
            problems.push(problem);
            None
        }
    }
}

struct Reader<'i, 'o, T: Input> {
    parser: Parser<'i, T>,
    outside: &'o dyn Outside,
    problems: &'o mut Vec<Problem>,
    anchors: Vec<(usize, Node)>,
}

impl<'i, T: Input> Reader<'i, '_, T> {
    fn next(&mut self) -> Result<(Event<'i>, Span), Problem> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(e)) => {
                let at = Place { line: e.marker().line(), column: e.marker().col() + 1 };
                Err(Problem::hidden(at, format!("not YAML: {}", e.info())))
            }
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn document(&mut self) -> Result<Option<Node>, Problem> {
        let mut document = None;
        loop {
            let (event, span) = self.next()?;
            match event {
                Event::StreamEnd => return Ok(document),
                Event::DocumentStart(_) if document.is_some() => {
                    return Err(Problem::new(
                        Place::of(&span),
                        "a second YAML document; a pipeline file holds one".into(),
                    ));
                }
                Event::DocumentStart(_) => {
                    let (event, span) = self.next()?;
                    document = Some(self.node(event, span)?);
                }
                _ => {}
            }
        }
    }

    fn node(&mut self, event: Event<'i>, span: Span) -> Result<Node, Problem> {
        let at = Place::of(&span);
        let (anchor, tree) = match event {
            Event::Scalar(value, style, anchor, _) => {
                (anchor, Tree::Scalar(self.scalar(&value, style, at)))
            }
            Event::SequenceStart(anchor, _) => (anchor, Tree::Sequence(self.sequence()?)),
            Event::MappingStart(anchor, _) => (anchor, Tree::Mapping(self.mapping()?)),
            Event::Alias(id) => {
                let known = self.anchors.iter().find(|(anchor, _)| *anchor == id);
                return match known {
                    Some((_, node)) => Ok(Node { at, tree: node.tree.clone() }),
                    None => Err(Problem::new(at, "an alias to nothing".into())),
                };
            }
            _ => return Err(Problem::new(at, "expected a value".into())),
        };
        let node = Node { at, tree };
        if anchor != 0 {
            self.anchors.push((anchor, node.clone()));
        }
        Ok(node)
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, at: Place) -> Scalar {
        let plain = matches!(style, ScalarStyle::Plain);
        let (value, resolved) = match secrets::resolve(text, self.outside) {
            None => (Zeroizing::new(text.to_owned()), false),
            Some(Ok(value)) => (value, true),
            Some(Err(message)) => {
                self.problems.push(Problem::new(at, message));
                // A value that fits most places, so that one problem is not reported as two.
                (Zeroizing::default(), true)
            }
        };
        let defaults = secrets::defaulted(text, self.outside);
        Scalar { text: text.to_owned(), value, plain, resolved, defaults }
    }

    fn sequence(&mut self) -> Result<Vec<Node>, Problem> {
        let mut nodes = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(nodes),
                (event, span) => nodes.push(self.node(event, span)?),
            }
        }
    }

    fn mapping(&mut self) -> Result<Vec<(Key, Node)>, Problem> {
        let mut pairs: Vec<(Key, Node)> = Vec::new();
        loop {
            let (event, span) = self.next()?;
            let at = Place::of(&span);
            let name = match event {
                Event::MappingEnd => return Ok(pairs),
                Event::Scalar(name, ..) => name.into_owned(),
                _ => return Err(Problem::new(at, "a key must be text".into())),
            };
            if let Some((first, _)) = pairs.iter().find(|(key, _)| key.name == name) {
                let message =
                    format!("{name:?} is given twice; the first time on line {}", first.at.line);
                self.problems.push(Problem::new(at, message));
            }
            let (event, span) = self.next()?;
            let node = self.node(event, span)?;
            pairs.push((Key { at, name }, node));
        }
    }
}
