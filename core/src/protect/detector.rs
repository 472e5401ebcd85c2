//! What detectors there are, and what they are called.

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Detector {
    /// The value of a member whose name says what it is: db_password, X-Csrf-Token, authorization, otp, ..
    Named,
    /// Credentials of an Authorization header: Bearer, Basic, Negotiate.
    Authorization,
    /// JSON Web Tokens, signed or encrypted.
    Jwt,
    /// Private keys in PEM.
    PrivateKey,
    /// AWS access keys.
    AwsKey,
    /// Tokens that begin as their makers have them (`makers`).
    ApiToken,
    /// The password in scheme://user:password@host.
    UrlPassword,
    /// Card numbers, with their check digit (Luhn).
    Card,
    Email,
    /// Bank accounts, with their check digits (ISO 13616, mod 97).
    Iban,
    /// US social security numbers.
    Ssn,
}

pub const ALL: [Detector; 11] = {
    use Detector::*;
    [Named, Authorization, Jwt, PrivateKey, AwsKey, ApiToken, UrlPassword, Card, Email, Iban, Ssn]
};

impl Detector {
    pub fn name(self) -> &'static str {
        match self {
            Detector::Named => "named",
            Detector::Authorization => "authorization",
            Detector::Jwt => "jwt",
            Detector::PrivateKey => "private_key",
            Detector::AwsKey => "aws_key",
            Detector::ApiToken => "api_token",
            Detector::UrlPassword => "url_password",
            Detector::Card => "card",
            Detector::Email => "email",
            Detector::Iban => "iban",
            Detector::Ssn => "ssn",
        }
    }

    pub fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// Something that was found.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hit {
    pub detector: Detector,
    /// Where, with `*` for elements and for names that look like data.
    pub place: String,
}

/// What stands in the place of what was taken out.
pub fn mark(by: &str) -> String {
    format!("[erased:{by}]")
}
