//! The platform whose decisions are made up: its services, and who asks for what.

use rand::Rng;
use rand::rngs::StdRng;

pub struct Service {
    pub name: &'static str,
    pub policy: &'static str,
    /// Part of the traffic.
    pub weight: f64,
    pub opas: usize,
    pub deny: f64,
}

pub const SERVICES: [Service; 6] = [
    Service { name: "storefront", policy: "envoy/authz/allow", weight: 0.34, opas: 4, deny: 0.05 },
    Service { name: "orders", policy: "http/authz/decision", weight: 0.24, opas: 3, deny: 0.08 },
    Service { name: "search", policy: "app/rbac/allow", weight: 0.18, opas: 3, deny: 0.03 },
    Service { name: "ledger", policy: "http/authz/decision", weight: 0.12, opas: 2, deny: 0.12 },
    Service { name: "profile", policy: "app/rbac/allow", weight: 0.08, opas: 2, deny: 0.06 },
    Service {
        name: "admission",
        policy: "kubernetes/admission/deny",
        weight: 0.04,
        opas: 2,
        deny: 0.10,
    },
];
/// The service that the nightly job asks: the ledger.
pub const JOB: usize = 3;
pub const ACTIONS: [&str; 4] = ["GET", "POST", "PUT", "DELETE"];
pub const USERS: usize = 400;
pub const CLIENTS: usize = 12;
pub const RESOURCES: usize = 24;

pub fn client(n: usize) -> String {
    format!("svc-{:02}", n)
}

pub fn resource(service: usize, n: usize) -> String {
    format!("/v1/{}/r{n:02}", SERVICES[service].name)
}

pub fn uuid(bytes: u128) -> String {
    uuid::Builder::from_random_bytes(bytes.to_be_bytes()).into_uuid().to_string()
}

/// A standard normal variate (Box and Muller).
pub fn normal(rng: &mut StdRng) -> f64 {
    let (a, b): (f64, f64) = (rng.random_range(1e-12..1.0), rng.random());
    (-2.0 * a.ln()).sqrt() * (b * std::f64::consts::TAU).cos()
}

/// How many there are of something whose mean is `mean` (Knuth; for large means the normal approximation).
pub fn poisson(rng: &mut StdRng, mean: f64) -> u32 {
    if mean > 40.0 {
        return (mean + mean.sqrt() * normal(rng)).round().max(0.0) as u32;
    }
    let (limit, mut product, mut count) = ((-mean).exp(), 1.0, 0);
    loop {
        product *= rng.random::<f64>();
        if product <= limit {
            return count;
        }
        count += 1;
    }
}
