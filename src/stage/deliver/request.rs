//! Encoded requests, accounted for as long as they are there: those of records that wait beside others, or that another sink takes, too.

use std::future::Future;
use std::pin::Pin;

use super::Deliver;
use crate::decision::record::Record;
use crate::sink::Outcome;
use crate::sink::any::Request;
use crate::telemetry::held::Held;

struct Accounted {
    request: Box<dyn Request>,
    _held: Held,
}

impl Request for Accounted {
    fn size(&self) -> usize {
        self.request.size()
    }

    fn send(&self) -> Pin<Box<dyn Future<Output = Outcome> + Send + '_>> {
        self.request.send()
    }
}

impl Deliver {
    /// Encodes records for the sink.
    pub(super) fn request(&self, records: &[Record<'_>]) -> Box<dyn Request> {
        let request = self.sink.clone().encode(records);
        let mut held = self.meters.holding(&self.name);
        held.set(request.size());
        Box::new(Accounted { request, _held: held })
    }
}
