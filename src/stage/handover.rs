//! In which order a changed pipeline file is taken up: the new is made before the old stops, and where it can't begin, the old goes on. Pure.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Everything of the new parts that can be wrong is made, while the old ones run.
    Make,
    /// The old ones stop, and are waited for.
    End,
    /// The new ones begin.
    Begin,
    /// Those of them that began stop again,
    EndAgain,
    /// and the old ones begin again.
    BeginAgain,
}

impl Step {
    pub const FIRST: Step = Step::Make;

    /// What comes next; nothing if that was all.
    pub fn next(self, failed: bool) -> Option<Step> {
        match (self, failed) {
            (Step::Make, false) => Some(Step::End),
            (Step::End, _) => Some(Step::Begin),
            (Step::Begin, true) => Some(Step::EndAgain),
            (Step::EndAgain, _) => Some(Step::BeginAgain),
            (Step::Make, true) | (Step::Begin, false) | (Step::BeginAgain, _) => None,
        }
    }
}
