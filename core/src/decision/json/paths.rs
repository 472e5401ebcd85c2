//! Several pointers, looked for in one walk through a document.

use super::{Pointer, elements, members};

/// A name of pointers, and what may come after it.
#[derive(Debug, Clone, Default)]
pub struct Paths {
    name: String,
    then: Vec<Paths>,
    /// The numbers of the pointers that end here.
    ends: Vec<usize>,
}

/// Numbered in their order, from 0.
impl FromIterator<Pointer> for Paths {
    fn from_iter<I: IntoIterator<Item = Pointer>>(pointers: I) -> Paths {
        let mut root = Paths::default();
        for (number, pointer) in pointers.into_iter().enumerate() {
            let end = pointer.names().iter().fold(&mut root, |path, name| {
                let at = path.then.iter().position(|p| p.name == *name).unwrap_or_else(|| {
                    path.then.push(Paths { name: name.clone(), ..Paths::default() });
                    path.then.len() - 1
                });
                &mut path.then[at]
            });
            end.ends.push(number);
        }
        root
    }
}

impl Paths {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What they begin with.
    pub fn then(&self) -> &[Paths] {
        &self.then
    }

    /// Tells what is there in a valid document, with the number of each pointer to it, in the document's order.
    pub fn walk<'a>(&self, raw: &'a str, tell: &mut dyn FnMut(usize, &'a str)) {
        self.ends.iter().for_each(|number| tell(*number, raw));
        if self.then.is_empty() {
            return;
        }
        match raw.as_bytes().first() {
            Some(b'{') => {
                for member in members(raw) {
                    let name = member.key();
                    for path in self.then.iter().filter(|path| *path.name == *name) {
                        path.walk(member.value, tell);
                    }
                }
            }
            Some(b'[') => {
                for path in &self.then {
                    let element = path.name.parse().ok().and_then(|n| elements(raw).nth(n));
                    element.into_iter().for_each(|element| path.walk(element, tell));
                }
            }
            _ => {}
        }
    }
}
