//! What only looks like a secret.

use serde_json::json;

use super::*;

/// Harmless members, each with its kind: what detector might take it for something.
const HARMLESS_NAMES: [(&str, &str); 62] = [
    ("token_type", "Bearer"),
    ("token_count", "17"),
    ("next_page_token", "<24.u>"),
    ("nextToken", "<24.u>"),
    ("continuationToken", "<24.u>"),
    ("password_policy", "strong-2"),
    ("password_expires_at", "2026-11-24T12:00:00Z"),
    ("secret_name", "db-credentials"),
    ("secretName", "tls-cert-1"),
    ("key", "user:42:profile"),
    ("keys", "a,b"),
    ("key_id", "<16.h>"),
    ("kid", "<16.u>"),
    ("public_key", "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI<43.a>"),
    ("primary_key", "order_<8.d>"),
    ("partition_key", "tenant-<6.d>"),
    ("sort_key", "2026#<6.d>"),
    ("cache_key", "v2:<12.h>"),
    ("idempotency_key", "<32.h>"),
    ("routing_key", "orders.created"),
    ("object_key", "2026/11/report-<6.d>.pdf"),
    ("monkey", "george-<2.d>"),
    ("turkey", "ankara"),
    ("passed", "yes"),
    ("bypass", "none-2"),
    ("compass", "north-1"),
    ("cookie_name", "sid"),
    ("cookie_policy", "lax"),
    ("status_code", "200"),
    ("country_code", "DE"),
    ("zip_code", "10115"),
    ("error_code", "E<4.d>"),
    ("pinned", "true"),
    ("shipping", "express-<2.d>"),
    ("adopt", "yes"),
    ("author", "bob"),
    ("authorized", "true"),
    ("authorization_mode", "RBAC"),
    ("keyboard", "qwerty"),
    ("credit", "250"),
    ("sign", "+1"),
    ("design", "v<2.d>"),
    ("session_name", "morning-<2.d>"),
    ("password", "***"),
    ("password", "[REDACTED]"),
    ("token", "${GITHUB_TOKEN}"),
    ("client_secret", "{{ vault.secret }}"),
    ("api_key", "<redacted-x"),
    ("secretary", "ann"),
    ("tokenizer", "bpe-<4.d>"),
    ("max_tokens", "4096"),
    ("passenger", "bob-<2.d>"),
    ("issue_key", "PROJ-<4.d>"),
    ("row_key", "r<8.d>"),
    ("tag_key", "team-<2.d>"),
    ("s3_key", "logs/<6.d>.gz"),
    ("foreign_key", "fk_<6.d>"),
    ("code", "<6.d>"),
    ("pin_color", "red1"),
    ("opt", "123456"),
    ("keystore", "jks-<2.d>"),
    ("encoding", "gzip"),
];

const HARMLESS_TEXTS: [&str; 64] = [
    "<8.h>-<4.h>-4<3.h>-a<3.h>-<12.h>",
    "<40.h>",
    "<64.h>",
    "sha256:<64.h>",
    "W/\"<32.h>\"",
    "<32.h>",
    "2026-11-24T12:48:50.163424070Z",
    "17<11.d>",
    "17<17.d>",
    "+49 30 1<6.d>",
    "+1 (555) 010-<4.d>",
    "555-01-<4.d>9",
    "10.0.<2.d>.7:41000",
    "00-<32.h>-<16.h>-01",
    "arn:aws:iam::<12.d>:role/deploy-<4.s>",
    "i-0<16.h>",
    "ami-0<16.h>",
    "spiffe://cluster.local/ns/shop/sa/orders-<3.s>",
    "https://medium.example/@bob/p-<6.h>",
    "https://example.com:8080/a@b/<4.d>",
    "@scope/package-<3.s>@1.2.3",
    "user@host",
    "git@host:team/repo-<3.s>",
    "Bearer authentication is required",
    "the bearer of this letter",
    "basic knowledge of Rego",
    "Basic auth: disabled",
    "Token expired at 12:0<1.d>",
    "token: expired",
    "password: must be at least 12 characters",
    "the password is too short (<1.d>)",
    "wrong password for user bob",
    "secret sharing, explained",
    "api key rotation: every 90 days",
    "cookie consent: yes",
    "sk-learn-extra-tools-for-people",
    "sk-circle-fade-dot-and-more-dots",
    "npm_config_registry",
    "glpat-short",
    "xoxo from bob and ann",
    "AKIA is a prefix of keys",
    "SKU <8.d>",
    "hf_hub_download",
    "pk_live_<24.a>",
    "eyJafjallajokull",
    "DE8937040044053201300<1.d>X",
    "GB00 WEST 1234 5698 7654 32",
    "LONDON12 <12.d>",
    "978-3-16-148410-<1.d>",
    "1Z<6.U>0<8.d>",
    "219-99-0000",
    "000-12-3456",
    "-----BEGIN CERTIFICATE----- MIIB<20.a>",
    "-----BEGIN PUBLIC KEY----- MFkw<20.a>",
    "ssh-rsa AAAAB3NzaC1yc2EAAAADAQAB<40.a>",
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUg<24.a>",
    "image \"docker.io/nginx:latest\" comes from an untrusted registry",
    "v1.<2.d>.<2.d>-rc.1+build.<6.d>",
    "key=value&page=2&sort=name",
    "/v1/items/<8.d>?page=2&limit=50&order=asc",
    "SELECT * FROM users WHERE password = ?",
    "grant_type=client_credentials&scope=read",
    "lorem ipsum dolor sit amet <4.d>",
    "4.<15.d>",
];

pub fn look_alikes(seed: u64) -> Vec<Case> {
    let mut chance = Chance(seed);
    let c = &mut chance;
    let mut all = Vec::new();
    let mut add = |kind, input| all.push(Case { kind, input, secret: None });
    for (name, form) in HARMLESS_NAMES.into_iter().chain(HARMLESS_NAMES) {
        let form = if form == "<redacted-x" { "<0.d>[redacted]" } else { form };
        let text = c.form(form);
        let input = match c.below(5) {
            0 | 1 => json!({name: text}),
            2 => json!({"body": json!({name: text}).to_string()}),
            3 => json!({"items": [{name: text}]}),
            _ => json!({"query": format!("a=b&{}={}", percent(name), percent(&text))}),
        };
        add("names", input);
    }
    for form in HARMLESS_TEXTS.into_iter().chain(HARMLESS_TEXTS) {
        let text = c.form(form);
        let input = placed(c, &text);
        add("texts", input);
    }
    for i in 0..40 {
        // One digit off.
        let mut wrong = card(c).into_bytes();
        let last = wrong.len() - 1;
        wrong[last] = b'0' + (wrong[last] - b'0' + 1 + c.below(8) as u8) % 10;
        let wrong = String::from_utf8(wrong).unwrap();
        let text = if i % 2 == 0 { wrong } else { grouped(&wrong, " ") };
        let input = placed(c, &text);
        add("numbers", input);
    }
    for _ in 0..20 {
        // Orders, waybills, and numbers of no issuer.
        let form = c.of(&["9<15.d>", "0<15.d>", "1<12.d>", "8<15.d>", "70<13.d>"]);
        let text = luhn(&c.form(form));
        let input = placed(c, &text);
        add("numbers", input);
    }
    for _ in 0..20 {
        let mut wrong = iban(c);
        let check = (wrong[2..4].parse::<u32>().unwrap() + 1 + c.below(90) as u32) % 96 + 2;
        wrong.replace_range(2..4, &format!("{check:02}"));
        if check_97(&format!("{}{}", &wrong[4..], &wrong[..4])) != 1 {
            let input = placed(c, &wrong);
            add("numbers", input);
        }
    }
    all
}
