//! What the sinks of a simulated process read together, by docket's own rings.

use std::cell::Cell;
use std::rc::Rc;

use docket::ring::{Joined, Ring, Taken, Who};

use super::*;

/// Bytes of a partition's ring: some twenty records.
const ROOM: usize = 20_000;
/// So many records come with a fetch.
const FETCH: u64 = 20;

/// The rings of one process.
#[derive(Clone, Default)]
pub struct Rings(Rc<State>);

#[derive(Default)]
struct State {
    rings: std::cell::RefCell<BTreeMap<Place, Of>>,
    next: Cell<Who>,
}

struct Of {
    /// Of the topic.
    id: String,
    ring: Ring<Record>,
    /// Where its reader goes on.
    next: i64,
    /// It hears when the log is no more what it was.
    upheavals: u64,
}

/// A member's place in a ring, and the record that it looks at.
pub struct Following {
    rings: Rings,
    place: Place,
    who: Who,
    pub ahead: Option<Record>,
}

impl Rings {
    /// Somebody wants to go on there, in the topic with this id.
    pub fn follow(&self, w: &World, place: &Place, id: &str, at: i64) -> Option<Following> {
        let mut rings = self.0.rings.borrow_mut();
        let of = rings.entry(place.clone()).or_insert_with(|| Of {
            id: id.to_owned(),
            ring: Ring::new(ROOM),
            next: 0,
            upheavals: w.upheavals,
        });
        if of.id != id && w.sabotage != Sabotage::SharesByName {
            of.ring.fail();
            of.id = id.to_owned();
        }
        let who = self.0.next.get();
        self.0.next.set(who + 1);
        match of.ring.follow(who, at) {
            Joined::Alone => return None,
            Joined::Follows => {}
            Joined::Begins => (of.next, of.upheavals) = (at, w.upheavals),
        }
        Some(Following { rings: self.clone(), place: place.clone(), who, ahead: None })
    }
}

impl Following {
    /// Looks at the next record.
    pub fn look(&mut self, w: &mut World) -> Taken {
        if self.ahead.is_some() {
            return Taken::Records(1);
        }
        let mut rings = self.rings.0.rings.borrow_mut();
        let Some(of) = rings.get_mut(&self.place) else { return Taken::Gone };
        if of.ring.is_drained(self.who) {
            let changed = of.upheavals != w.upheavals || w.id(&self.place.0) != of.id;
            if changed && w.sabotage != Sabotage::SharesByName {
                of.ring.fail();
                return Taken::Gone;
            }
            for _ in 0..1 + w.below(FETCH) {
                match w.read(&self.place, of.next) {
                    Some(record) => {
                        of.next = record.offset + 1;
                        of.ring.push(record.offset, record.value.len() + 96, record);
                    }
                    None => {
                        of.next = of.next.max(w.stable(&self.place));
                        of.ring.ended();
                        break;
                    }
                }
            }
        }
        of.ring.take(self.who, 1, &mut |record| self.ahead = Some(record))
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        if let Some(of) = self.rings.0.rings.borrow_mut().get_mut(&self.place) {
            of.ring.leave(self.who);
        }
    }
}
