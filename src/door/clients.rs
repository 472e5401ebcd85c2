//! Who may come in, and how much of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode, header};
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use ring::hmac;
use ring::rand::SystemRandom;

use super::Refused;
use crate::config::secrets::Secret;
use crate::door::config::DoorLimits;

/// Clients by their tokens, and what each has used.
pub struct Clients {
    /// Tokens are compared by their HMAC under a key of this process: how long that takes tells nothing of them.
    key: hmac::Key,
    tokens: RwLock<Vec<Token>>,
    requests: Option<Limiter>,
    bytes: Option<Limiter>,
}

struct Token {
    name: Arc<str>,
    tag: hmac::Tag,
}

struct Limiter {
    limiter: DefaultKeyedRateLimiter<Arc<str>>,
    most: u32,
}

impl Limiter {
    fn new(each_second: u32) -> Option<Limiter> {
        let quota = Quota::per_second(NonZeroU32::new(each_second)?);
        Some(Limiter { limiter: RateLimiter::keyed(quota), most: each_second })
    }

    /// More than a second's worth is one second's worth.
    fn take(&self, client: &Arc<str>, n: usize) -> Result<(), Refused> {
        let Some(n) = NonZeroU32::new(u32::try_from(n).unwrap_or(u32::MAX).min(self.most)) else {
            return Ok(());
        };
        // Who has not come for a while is forgotten.
        if self.limiter.len() > MANY {
            self.limiter.retain_recent();
        }
        match self.limiter.check_key_n(client, n) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(not_until)) => {
                let wait: Duration = not_until.wait_time_from(DefaultClock::default().now());
                Err(Refused::later(
                    StatusCode::TOO_MANY_REQUESTS,
                    "more than this client may send (door.limits)",
                    wait.as_secs() + 1,
                ))
            }
            Err(_) => Ok(()),
        }
    }
}

const MANY: usize = 10_000;

impl Clients {
    pub fn new(tokens: &BTreeMap<String, Secret>, limits: &DoorLimits) -> Clients {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())
            .expect("the system has random numbers");
        let clients = Clients {
            key,
            tokens: RwLock::default(),
            requests: limits.requests_per_second.and_then(Limiter::new),
            bytes: limits
                .bytes_per_second
                .and_then(|b| Limiter::new(u32::try_from(b.0).unwrap_or(u32::MAX))),
        };
        clients.set(tokens);
        clients
    }

    /// From now on these are the tokens.
    pub fn set(&self, tokens: &BTreeMap<String, Secret>) {
        let all = tokens.iter().map(|(name, token)| Token {
            name: name.as_str().into(),
            tag: hmac::sign(&self.key, token.expose().as_bytes()),
        });
        *self.tokens.write().unwrap_or_else(PoisonError::into_inner) = all.collect();
    }

    /// Who it is that asks, if they may.
    pub fn admit(&self, headers: &HeaderMap, peer: IpAddr) -> Result<Arc<str>, Refused> {
        let client = self.who(headers, peer)?;
        if let Some(limiter) = &self.requests {
            limiter.take(&client, 1)?;
        }
        Ok(client)
    }

    /// Counts bytes that a client sent.
    pub fn pay(&self, client: &Arc<str>, bytes: usize) -> Result<(), Refused> {
        self.bytes.as_ref().map_or(Ok(()), |limiter| limiter.take(client, bytes))
    }

    fn who(&self, headers: &HeaderMap, peer: IpAddr) -> Result<Arc<str>, Refused> {
        let tokens = self.tokens.read().unwrap_or_else(PoisonError::into_inner);
        if tokens.is_empty() {
            return Ok(peer.to_canonical().to_string().into());
        }
        let given = headers
            .get(header::AUTHORIZATION)
            .map(axum::http::HeaderValue::as_bytes)
            .unwrap_or_default();
        let scheme =
            given.split_at_checked(7).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"bearer "));
        let token = scheme.map_or(&b""[..], |(_, token)| token.trim_ascii());
        let mut found = None;
        // All of them, whichever it is.
        for known in tokens.iter() {
            if hmac::verify(&self.key, token, known.tag.as_ref()).is_ok() {
                found = Some(&known.name);
            }
        }
        found.cloned().ok_or_else(|| {
            Refused::new(
                StatusCode::UNAUTHORIZED,
                "a bearer token is needed, and one that is known",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(token: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::AUTHORIZATION, token.parse().unwrap());
        headers
    }

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn tokens_let_in_and_change() {
        let tokens = BTreeMap::from([
            ("a".to_owned(), Secret::new("one")),
            ("b".to_owned(), Secret::new("two")),
        ]);
        let clients = Clients::new(&tokens, &DoorLimits::default());
        assert_eq!(&*clients.admit(&with("Bearer two"), HERE).unwrap(), "b");
        assert_eq!(&*clients.admit(&with("bearer one"), HERE).unwrap(), "a");
        for wrong in ["Bearer on", "Bearer onee", "Basic one", "one", "", "Bearer "] {
            assert_eq!(
                clients.admit(&with(wrong), HERE).unwrap_err().status,
                StatusCode::UNAUTHORIZED,
                "{wrong}"
            );
        }
        clients.set(&BTreeMap::from([("a".to_owned(), Secret::new("three"))]));
        assert!(
            clients.admit(&with("Bearer one"), HERE).is_err()
                && clients.admit(&with("Bearer three"), HERE).is_ok()
        );
        clients.set(&BTreeMap::new());
        assert_eq!(&*clients.admit(&HeaderMap::new(), HERE).unwrap(), "127.0.0.1");
    }

    #[test]
    fn each_client_has_its_own_rate() {
        let limits = DoorLimits {
            requests_per_second: Some(2),
            bytes_per_second: Some(crate::config::units::Bytes(1000)),
            ..DoorLimits::default()
        };
        let clients = Clients::new(&BTreeMap::new(), &limits);
        let other = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));
        let results = [HERE, HERE, HERE, other]
            .map(|ip| clients.admit(&HeaderMap::new(), ip).map_err(|r| (r.status, r.retry_after)));
        assert!(results[0].is_ok() && results[1].is_ok() && results[3].is_ok());
        assert_eq!(results[2], Err((StatusCode::TOO_MANY_REQUESTS, Some(1))));
        let client: Arc<str> = "x".into();
        assert!(clients.pay(&client, 5000).is_ok());
        assert!(clients.pay(&client, 500).is_err());
    }
}
