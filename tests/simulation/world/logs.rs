//! What happens to logs beside that records are written to them.

use super::*;

impl World {
    pub fn id(&self, topic: &str) -> String {
        self.ids[topic].to_string()
    }

    pub fn start(&self, place: &Place) -> i64 {
        self.first.get(place).copied().unwrap_or(0)
    }

    /// Takes note of what is deleted.
    fn bury(&mut self, place: &Place, to: i64) {
        let mut from = self.start(place);
        while let Some(record) = self.read(place, from).filter(|record| record.offset < to) {
            from = record.offset + 1;
            self.deleted.push((place.clone(), record.offset, record.value));
        }
    }

    /// Retention deletes some of a partition.
    pub fn retain(&mut self, place: &Place, to: i64) {
        let to = to.min(self.stable(place));
        if to > self.start(place) {
            self.bury(place, to);
            self.first.insert(place.clone(), to);
            self.upheavals += 1;
            self.note(format!("{place:?} starts at {to} now"));
        }
    }

    /// A topic is deleted and made anew; with it go its offsets, as a rule.
    pub fn recreate(&mut self, topic: &str, with_offsets: bool) {
        let places: Vec<Place> = self.logs.keys().filter(|(t, _)| t == topic).cloned().collect();
        for place in &places {
            self.bury(place, i64::MAX);
            // And what stands behind the begin of an open transaction, which may be committed yet.
            let stable = self.stable(place) as usize;
            for (offset, entry) in self.logs[place].iter().enumerate().skip(stable) {
                if let Entry::Record { value, .. } = entry
                    && self.state(entry) != State::Aborted
                {
                    self.deleted.push((place.clone(), offset as i64, value.clone()));
                }
            }
            self.first.remove(place);
            self.stable.borrow_mut().remove(place);
            self.logs.insert(place.clone(), Vec::new());
            if with_offsets {
                self.groups.values_mut().for_each(|group| {
                    group.committed.remove(place);
                    group.metadata.remove(place);
                });
            }
        }
        *self.ids.get_mut(topic).unwrap() += 1;
        self.upheavals += 1;
        self.note(format!("{topic} was made anew"));
    }

    pub fn grow(&mut self, topic: &str) {
        let partition = self.partitions(topic);
        self.logs.insert((topic.to_owned(), partition), Vec::new());
        self.count();
        self.note(format!("{topic} has one more partition"));
    }

    /// The offsets of a group without members expire.
    pub fn expire(&mut self, group: &str) -> bool {
        self.tick();
        let Some(of) = self.groups.get_mut(group).filter(|of| of.members.is_empty()) else {
            return false;
        };
        of.committed.clear();
        of.metadata.clear();
        self.note(format!("the offsets of {group} expired"));
        true
    }

    pub fn is_written(&self, topic: &str) -> bool {
        self.logs.iter().any(|((t, _), log)| t == topic && !log.is_empty())
    }

    /// Whether all who read a topic have looked at what has its name now.
    pub fn is_looked_at(&self, topic: &str) -> bool {
        let id = self.id(topic);
        let mut readers = self.groups.values().filter(|g| g.topics.iter().any(|t| t == topic));
        readers.all(|group| {
            let of_it = |c: &Committed| c.topic_id.as_ref() == Some(&id);
            self.places(topic).iter().all(|place| group.committed.get(place).is_some_and(of_it))
        })
    }

    pub fn places(&self, topic: &str) -> Vec<Place> {
        self.logs.keys().filter(|(t, _)| t == topic).cloned().collect()
    }

    pub fn length(&self, place: &Place) -> i64 {
        self.logs[place].len() as i64
    }
}
