//! Made-up secrets and what only looks like them, the same for the same seed. No secret stands in this
//! repository: each is put together from its form and chance.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

pub mod field;
mod harmless;

pub use harmless::look_alikes;

pub const LOWER: &str = "abcdefghijklmnopqrstuvwxyz";
pub const ALNUM: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
const SMALL: &str = "abcdefghijklmnopqrstuvwxyz0123456789";
const UPPER: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
pub const HEX: &str = "0123456789abcdef";
const DIGITS: &str = "0123456789";
const URL: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Chance, by SplitMix64.
pub struct Chance(pub u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    pub fn of<'c>(&mut self, all: &[&'c str]) -> &'c str {
        all[self.below(all.len())]
    }

    pub fn some(&mut self, length: usize, of: &str) -> String {
        let of = of.as_bytes();
        (0..length).map(|_| char::from(of[self.below(of.len())])).collect()
    }

    /// `<n.set>` in a form is n of a set: d digits, h hex, a letters and digits, s small ones, U capitals
    /// and digits, u base64url, l letters.
    pub fn form(&mut self, form: &str) -> String {
        let mut out = String::new();
        for part in form.split('<') {
            let Some((what, rest)) = part.split_once('>') else {
                out.push_str(part);
                continue;
            };
            let (length, set) = what.split_once('.').unwrap();
            let set = match set {
                "d" => DIGITS,
                "h" => HEX,
                "a" => ALNUM,
                "s" => SMALL,
                "U" => UPPER,
                "u" => URL,
                "l" => LOWER,
                other => unreachable!("{other}"),
            };
            out.push_str(&self.some(length.parse().unwrap(), set));
            out.push_str(rest);
        }
        out
    }
}

/// One thing to find, or to leave alone.
pub struct Case {
    pub kind: &'static str,
    pub input: Value,
    /// What has to be gone; nothing may change without it.
    pub secret: Option<String>,
}

/// A text somewhere in an input.
fn placed(chance: &mut Chance, text: &str) -> Value {
    match chance.below(6) {
        0 => json!({"note": text}),
        1 => json!({"request": {"items": [1, {"detail": text}]}}),
        2 => json!({"message": format!("see {text} for more")}),
        3 => json!({"body": json!({"comment": text}).to_string()}),
        4 => json!({"url": format!("https://app.example/x?ref={}&page=2", percent(text))}),
        _ => json!({"state": URL_SAFE_NO_PAD.encode(json!({"c": text}).to_string())}),
    }
}

pub fn percent(text: &str) -> String {
    text.bytes()
        .map(|b| {
            if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") }
        })
        .collect()
}

fn luhn(digits: &str) -> String {
    let sum: u32 = digits
        .bytes()
        .rev()
        .enumerate()
        .map(|(i, b)| {
            let d = u32::from(b - b'0');
            if i % 2 == 0 { d * 2 % 10 + d * 2 / 10 } else { d }
        })
        .sum();
    format!("{digits}{}", (10 - sum % 10) % 10)
}

fn card(chance: &mut Chance) -> String {
    let (begins, length) = [
        ("4", 16),
        ("51", 16),
        ("55", 16),
        ("2221", 16),
        ("34", 15),
        ("37", 15),
        ("6011", 16),
        ("35", 16),
        ("36", 14),
        ("62", 16),
        ("4", 19),
    ][chance.below(11)];
    let rest = chance.some(length - 1 - begins.len(), DIGITS);
    luhn(&format!("{begins}{rest}"))
}

fn grouped(digits: &str, by: &str) -> String {
    let sizes: &[usize] = match digits.len() {
        15 => &[4, 6, 5],
        14 => &[4, 6, 4],
        19 => &[4, 4, 4, 4, 3],
        _ => &[4, 4, 4, 4],
    };
    let mut at = 0;
    let parts: Vec<&str> = sizes
        .iter()
        .map(|n| {
            at += n;
            &digits[at - n..at]
        })
        .collect();
    parts.join(by)
}

fn check_97(text: &str) -> u32 {
    text.bytes().fold(0, |rest, b| {
        if b.is_ascii_digit() {
            (rest * 10 + u32::from(b - b'0')) % 97
        } else {
            (rest * 100 + u32::from(b - b'A') + 10) % 97
        }
    })
}

fn iban(chance: &mut Chance) -> String {
    let (country, bban) = [
        ("DE", "<18.d>"),
        ("GB", "NWBK<14.d>"),
        ("FR", "<23.d>"),
        ("NL", "ABNA<10.d>"),
        ("NO", "<11.d>"),
        ("ES", "<20.d>"),
        ("CH", "<17.d>"),
        ("PL", "<24.d>"),
        ("AT", "<16.d>"),
        ("BE", "<12.d>"),
        ("IT", "X<22.d>"),
        ("SE", "<20.d>"),
        ("MT", "MALT<5.d><18.U>"),
    ][chance.below(13)];
    let bban = chance.form(bban);
    let check = 98 - check_97(&format!("{bban}{country}00"));
    format!("{country}{check:02}{bban}")
}

fn in_fours(text: &str) -> String {
    let parts: Vec<&str> =
        (0..text.len()).step_by(4).map(|i| &text[i..text.len().min(i + 4)]).collect();
    parts.join(" ")
}

/// Tokens as their makers have them today, and as some have had them.
const TOKENS: [&str; 66] = [
    "ghp_<36.a>",
    "gho_<36.a>",
    "ghs_<36.a>",
    "ghu_<36.a>",
    "ghr_<76.a>",
    "github_pat_<22.a>_<59.a>",
    "glpat-<20.u>",
    "glpat-<27.u>.01.<9.s>",
    "gldt-<20.u>",
    "glrt-<20.u>",
    "glcbt-<2.h>_<20.u>",
    "glptt-<40.h>",
    "glagent-<50.u>",
    "GR1348941<20.u>",
    "xoxb-<12.d>-<13.d>-<24.a>",
    "xoxp-<12.d>-<12.d>-<12.d>-<32.h>",
    "xoxe.xoxp-1-<40.a>",
    "xoxe-1-<60.a>",
    "xapp-1-A<10.U>-<13.d>-<64.h>",
    "https://hooks.slack.com/services/T<8.U>/B<10.U>/<24.a>",
    "sk_live_<24.a>",
    "rk_live_<24.a>",
    "sk_test_<99.a>",
    "whsec_<32.a>",
    "shpat_<32.h>",
    "shpss_<32.h>",
    "shpca_<32.h>",
    "dop_v1_<64.h>",
    "doo_v1_<64.h>",
    "dor_v1_<64.h>",
    "dckr_pat_<27.u>",
    "dckr_oat_<32.u>",
    "AIza<35.u>",
    "ya29.<60.u>",
    "GOCSPX-<28.u>",
    "hvs.<95.u>",
    "hvb.<140.u>",
    "hf_<34.a>",
    "api_org_<34.a>",
    "AKIA<16.U>",
    "ASIA<16.U>",
    "sk-proj-<80.u>",
    "sk-<20.a>T3BlbkFJ<20.a>",
    "sk-ant-api03-<93.u>AA",
    "npm_<36.a>",
    "pypi-AgEIcHlwaS5vcmc<60.u>",
    "SG.<22.u>.<43.u>",
    "SK<32.h>",
    "dapi<32.h>",
    "ntn_<46.a>",
    "figd_<43.u>",
    "glsa_<32.a>_<8.h>",
    "NRAK-<27.U>",
    "sntryu_<64.h>",
    "dp.pt.<43.a>",
    "sq0atp-<22.u>",
    "ATATT3<60.u>",
    "lin_api_<40.a>",
    "gsk_<52.a>",
    "tskey-auth-<16.a>-<30.a>",
    "rubygems_<48.h>",
    "LTAI<20.a>",
    "sha256~<43.u>",
    "abc7Q~<34.a>",
    // These two are not in docket's table.
    "nfp_<40.a>",
    "pul-<40.h>",
];

const NAMES: [&str; 60] = [
    "password",
    "db_password",
    "dbPassword",
    "passwd",
    "userPassword",
    "new_password",
    "password2",
    "PGPASSWORD",
    "MYSQL_ROOT_PASSWORD",
    "passphrase",
    "secret",
    "client_secret",
    "clientSecret",
    "app-secret",
    "webhook_secret",
    "token",
    "access_token",
    "refreshToken",
    "id_token",
    "csrf_token",
    "X-CSRF-Token",
    "xsrf-token",
    "private-token",
    "X-Vault-Token",
    "X-Auth-Token",
    "deploy_token",
    "botToken",
    "api_key",
    "apiKey",
    "X-API-Key",
    "apikey",
    "x-functions-key",
    "Ocp-Apim-Subscription-Key",
    "signing_key",
    "encryption_key",
    "AccountKey",
    "secretAccessKey",
    "private_key",
    "master_key",
    "stripe_key",
    "authorization",
    "Proxy-Authorization",
    "cookie",
    "Set-Cookie",
    "session_cookie",
    "db_pass",
    "smtp_pass",
    "credentials",
    "creds",
    "JSESSIONID",
    "PHPSESSID",
    "jwt",
    "aws_secret_access_key",
    "X-Amz-Security-Token",
    "webhookSigningSecret",
    "ssh_private_key",
    "pwd",
    "mnemonic",
    "recovery_key",
    "admin_password_hash",
];

fn value(chance: &mut Chance) -> String {
    let form = chance.of(&[
        "<8.a>9x",
        "<5.l>-<5.l>-<5.l>",
        "<12.a>!#",
        "<6.l>123",
        "S3cr3t <6.l>",
        "<32.h>",
        "<20.a>=",
        "p\u{e4}ss<6.a>",
        "<4.l>\"<4.d>\\",
        "<9.l>",
    ]);
    chance.form(form)
}

/// A name and its value, as programs write them.
fn named(chance: &mut Chance, name: &str, value: &str) -> Value {
    match chance.below(9) {
        0 => json!({name: value}),
        1 => json!({"headers": {name: [value]}}),
        2 => json!({"body": json!({"user": "bob", name: value}).to_string()}),
        3 => json!({"body": format!("user=bob&{name}={}&x=1", percent(value))}),
        4 => json!({"path": format!("/login?x=1&{name}={}", percent(value))}),
        5 => json!({"env": [{"name": name, "value": value}]}),
        6 => json!({"raw": STANDARD.encode(json!({name: value}).to_string())}),
        7 => json!({"line": format!("level=info {name}={} user=bob", json!(value))}),
        _ => json!({"event": json!({"inner": json!({name: value}).to_string()}).to_string()}),
    }
}

pub fn secrets(seed: u64) -> Vec<Case> {
    let mut chance = Chance(seed);
    let c = &mut chance;
    let mut all = Vec::new();
    let mut add =
        |kind, secret: &str, input| all.push(Case { kind, input, secret: Some(secret.into()) });
    for name in NAMES.into_iter().chain(NAMES) {
        let secret = value(c);
        let input = named(c, name, &secret);
        add("named", &secret, input);
    }
    for name in ["otp", "pin", "cvv", "mfa_code", "totp", "verification_code"] {
        let secret = c.form("<6.d>");
        add(
            "named",
            &secret,
            json!({name: secret.parse::<u64>().unwrap_or(654_321).max(100_000), "n": 1}),
        );
        add("named", &secret, json!({"body": format!("a=b&{name}={secret}")}));
    }
    for form in TOKENS {
        let secret = c.form(form);
        let kind = if secret.starts_with('A') && form.ends_with("IA<16.U>") {
            "aws_key"
        } else {
            "api_token"
        };
        let input = placed(c, &secret);
        add(kind, &secret, input);
    }
    for i in 0..24 {
        let (form, secret) = match i % 6 {
            0 => ("Bearer ", c.form("<20.u>7")),
            1 => ("bearer ", c.form("<5.s>7")),
            2 => ("Basic ", STANDARD.encode(c.form("<3.l>:<6.a>"))),
            3 => ("Basic ", STANDARD.encode(c.form("a:<1.l>"))),
            4 => ("Negotiate ", c.form("YII<40.a>=")),
            _ => ("Bearer ", c.form("<8.l>.<30.u>")),
        };
        let input = if i % 2 == 0 {
            placed(c, &format!("{form}{secret}"))
        } else {
            json!({"h": format!("{form}{secret}")})
        };
        add("authorization", &secret, input);
    }
    for _ in 0..16 {
        let part = |text: String| URL_SAFE_NO_PAD.encode(text);
        let subject = c.form("<8.s>");
        let secret = format!(
            "{}.{}.{}",
            part(json!({"alg": "RS256", "typ": "JWT"}).to_string()),
            part(json!({"sub": subject}).to_string()),
            c.form("<43.u>")
        );
        let input = placed(c, &secret);
        add("jwt", &secret, input);
    }
    for i in 0..12 {
        let kind = c.of(&["RSA ", "EC ", "", "OPENSSH ", "ENCRYPTED "]);
        let secret = c.form("MIIE<60.a>");
        let end = if i % 3 == 0 { "" } else { "\n-----END PRIVATE KEY-----\n" };
        let dashes = "-----";
        let input = placed(c, &format!("{dashes}BEGIN {kind}PRIVATE KEY{dashes}\n{secret}{end}"));
        add("private_key", &secret, input);
    }
    for i in 0..24 {
        let secret = match i % 4 {
            0 => c.form("<10.a>"),
            1 => c.form("p@<6.a>"),
            2 => c.form("<4.l>:<4.a>"),
            _ => c.form("<6.a>!$"),
        };
        let scheme = c.of(&["postgres", "mysql", "redis", "mongodb+srv", "https", "amqp"]);
        let input = json!({"dsn": format!("{scheme}://app:{secret}@db.internal:5432/x?ssl=1")});
        add("url_password", &secret, input);
    }
    for i in 0..36 {
        let number = card(c);
        let secret = match i % 3 {
            0 => number,
            1 => grouped(&number, " "),
            _ => grouped(&number, "-"),
        };
        let text = match i % 5 {
            0 => format!("{secret} 12/29 737"),
            1 => format!("pay 2 {secret}"),
            2 => format!("card {secret} 737"),
            _ => secret.clone(),
        };
        let input = if i % 3 == 0 && i % 5 > 2 {
            json!({"pan": secret.parse::<u64>().unwrap_or(4_111_111_111_111_111)})
        } else {
            placed(c, &text)
        };
        add("card", &secret, input);
    }
    for i in 0..24 {
        let secret = if i % 2 == 0 { iban(c) } else { in_fours(&iban(c)) };
        let text = if i % 3 == 0 { format!("{secret} COBADEFFXXX") } else { secret.clone() };
        let input = placed(c, &text);
        add("iban", &secret, input);
    }
    for _ in 0..16 {
        let name = c.of(&["ann", "bob.smith", "j+tag", "o'neil", "x_1"]);
        let secret = format!("{name}@{}", c.form("<6.l>.example"));
        let input = placed(c, &secret);
        add("email", &secret, input);
    }
    for _ in 0..12 {
        let secret = format!("{}{}", 1 + c.below(5), c.form("<2.d>-1<1.d>-1<3.d>"));
        let input = placed(c, &secret);
        add("ssn", &secret, input);
    }
    all
}
