//! Tokens that begin as their makers have them. One table makes both what the prefilter looks for and the pattern.

use super::detector::Detector;

/// Tokens of one maker.
#[derive(Debug)]
pub struct Maker {
    /// Whose they are, for who reads this table.
    #[cfg_attr(not(test), expect(dead_code, reason = "it is for people"))]
    pub name: &'static str,
    pub detector: Detector,
    /// How they begin; the prefilter looks for each.
    pub begins: &'static [&'static str],
    /// What follows, as a regular expression.
    pub then: &'static str,
}

const fn token(name: &'static str, begins: &'static [&'static str], then: &'static str) -> Maker {
    Maker { name, detector: Detector::ApiToken, begins, then }
}

const fn aws(begins: &'static [&'static str], then: &'static str) -> Maker {
    Maker { name: "AWS", detector: Detector::AwsKey, begins, then }
}

/// What stands within tokens that begin with anything: a client secret of Microsoft Entra, a Telegram bot's.
pub const WITHIN: [&str; 2] = ["Q~", ":AA"];

pub const MAKERS: [Maker; 75] = [
    aws(&["AKIA", "ASIA", "ABIA", "ACCA"], r"[A-Z0-9]{16}\b"),
    aws(&["ABSK"], r"[A-Za-z0-9+/]{40,}={0,2}"),
    aws(&["IQoJb3JpZ2lu", "FwoGZXIvYXdz"], r"[A-Za-z0-9+/=]{100,}"),
    aws(&["bedrock-api-key-"], r"[A-Za-z0-9+/=_-]{20,}"),
    token(
        "GitHub",
        &["ghp_", "gho_", "ghu_", "ghs_", "ghr_"],
        r"[A-Za-z0-9_]{20,}(?:\.[A-Za-z0-9_-]+)*",
    ),
    token("GitHub", &["github_pat_"], r"[A-Za-z0-9_]{20,}"),
    token(
        "GitLab",
        &[
            "glpat-", "gldt-", "glrt-", "glrtr-", "glcbt-", "glptt-", "glft-", "glimt-",
            "glagent-", "gloas-", "glsoat-", "glffct-", "glwt-",
        ],
        r"[A-Za-z0-9_.=-]{16,}",
    ),
    token("GitLab", &["GR1348941"], r"[A-Za-z0-9_-]{20,}"),
    token("Slack", &["xox"], r"[a-z](?:\.xox[a-z])?-[A-Za-z0-9%+/=-]{10,}"),
    token("Slack", &["xapp-"], r"[A-Za-z0-9-]{10,}"),
    token("Slack", &["hooks.slack.com/"], r"(?:services|workflows|triggers)/[A-Za-z0-9+/]{20,}"),
    token("Stripe", &["sk_", "rk_"], r"(?:live|test|prod)_[A-Za-z0-9]{10,}"),
    token("Stripe", &["whsec_"], r"[A-Za-z0-9+/=]{24,}"),
    token("Google", &["AIza"], r"[A-Za-z0-9_-]{30,}"),
    token("Google", &["ya29."], r"[A-Za-z0-9_-]{20,}"),
    token("Google", &["GOCSPX-"], r"[A-Za-z0-9_-]{20,}"),
    token("Google", &["1//0"], r"[A-Za-z0-9_-]{30,}"),
    token("CircleCI", &["CCIPAT_"], r"[A-Za-z0-9_]{20,}"),
    token("PlanetScale", &["pscale_"], r"(?:tkn|pw|oauth)_[A-Za-z0-9_=.-]{20,}"),
    token("Pulumi", &["pul-"], r"[a-f0-9]{40}\b"),
    token("Netlify", &["nfp_"], r"[A-Za-z0-9]{30,}"),
    token("Render", &["rnd_"], r"[A-Za-z0-9]{20,}"),
    token("Heroku", &["HRKU-"], r"[A-Za-z0-9_-]{30,}"),
    token("Artifactory", &["AKCp", "cmVmdGtu"], r"[A-Za-z0-9]{50,}"),
    token("Buildkite", &["bkua_"], r"[a-z0-9]{30,}"),
    token("LangSmith", &["lsv2_pt_", "lsv2_sk_"], r"[A-Za-z0-9_]{20,}"),
    token("EasyPost", &["EZAK", "EZTK"], r"[A-Za-z0-9]{40,}"),
    token("Fly.io", &["fm2_", "fo1_"], r"[A-Za-z0-9_+/=-]{30,}"),
    token("NuGet", &["oy2"], r"[a-z0-9]{43}\b"),
    token("Plaid", &["access-production-", "access-sandbox-"], r"[0-9a-f-]{36}"),
    token("npm", &["npm_"], r"[A-Za-z0-9]{30,}"),
    token("PyPI", &["pypi-"], r"[A-Za-z0-9_-]{20,}"),
    token("RubyGems", &["rubygems_"], r"[a-f0-9]{32,}"),
    token("Hugging Face", &["hf_", "api_org_"], r"[A-Za-z0-9]{20,}"),
    token("DigitalOcean", &["dop_v1_", "doo_v1_", "dor_v1_"], r"[a-f0-9]{40,}"),
    token("SendGrid", &["SG."], r"[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"),
    token("Shopify", &["shp"], r"(?:at|ca|pa|ss|ua|tka)_[A-Fa-f0-9]{20,}"),
    token("OpenAI, Anthropic, ..", &["sk-"], r"[A-Za-z0-9_-]{20,}"),
    token("Vault", &["hvs.", "hvb.", "hvr."], r"[A-Za-z0-9_-]{20,}"),
    token("Docker", &["dckr_pat_", "dckr_oat_"], r"[A-Za-z0-9_-]{20,}"),
    token("age", &["AGE-SECRET-KEY-1"], r"[0-9A-Z]{30,}"),
    token("Twilio", &["SK"], r"[0-9a-f]{32}\b"),
    token("Databricks", &["dapi", "dose", "dkea"], r"[a-f0-9]{32}(?:-[0-9])?\b"),
    token("Linear", &["lin_api_", "lin_oauth_"], r"[A-Za-z0-9]{32,}"),
    token("Notion", &["ntn_"], r"[A-Za-z0-9]{40,}"),
    token("Figma", &["figd_"], r"[A-Za-z0-9_-]{30,}"),
    token("Grafana", &["glc_", "glsa_"], r"[A-Za-z0-9_+/=]{32,}"),
    token("New Relic", &["NRAK-"], r"[A-Za-z0-9_-]{19,}"),
    token("Sentry", &["sntrys_", "sntryu_"], r"[A-Za-z0-9+/=_]{40,}"),
    token("Doppler", &["dp."], r"(?:pt|st|ct|sa|scim|audit)\.[A-Za-z0-9._-]{40,}"),
    token("Dynatrace", &["dt0"], r"[a-z][0-9]{2}\.[A-Z0-9]{8,}\.[A-Za-z0-9]{40,}"),
    token("Square", &["sq0atp-", "sq0csp-"], r"[A-Za-z0-9_-]{22,}"),
    token("Atlassian", &["ATATT3", "ATCTT3", "ATBB"], r"[A-Za-z0-9_=-]{24,}"),
    token("Cloudflare", &["v1.0-"], r"[a-f0-9]{24}-[a-f0-9]{100,}"),
    token("Supabase", &["sbp_", "sb_secret_"], r"[A-Za-z0-9_-]{20,}"),
    token("Groq", &["gsk_"], r"[A-Za-z0-9]{40,}"),
    token("xAI", &["xai-"], r"[A-Za-z0-9]{40,}"),
    token("Perplexity", &["pplx-"], r"[A-Za-z0-9]{40,}"),
    token("Pinecone", &["pcsk_"], r"[A-Za-z0-9_]{32,}"),
    token("Sonar", &["sqp_", "squ_", "sqa_"], r"[a-f0-9]{40}\b"),
    token("Tailscale", &["tskey-"], r"[A-Za-z0-9-]{16,}"),
    token("Brevo", &["xkeysib-"], r"[a-f0-9]{40,}-[A-Za-z0-9]{16}"),
    token("Alibaba", &["LTAI"], r"[A-Za-z0-9]{17,20}\b"),
    token("1Password", &["ops_eyJ"], r"[A-Za-z0-9+/]{40,}={0,3}"),
    token(
        "Discord",
        &["discord.com/api/webhooks/", "discordapp.com/api/webhooks/"],
        r"[0-9]{17,20}/[A-Za-z0-9_-]{40,}",
    ),
    token("Microsoft Teams", &["webhook.office.com/webhookb2/"], r"[A-Za-z0-9@/-]{60,}"),
    token("Postman", &["PMAK-"], r"[a-f0-9]{24}-[a-f0-9]{34}"),
    token("Mailgun", &["key-"], r"[a-f0-9]{32}\b"),
    token("Facebook", &["EAACEdEose0cBA", "EAAG", "EAAB"], r"[A-Za-z0-9]{30,}"),
    token("HubSpot", &["pat-na1-", "pat-eu1-", "pat-na2-"], r"[a-f0-9]{8}-[a-f0-9-]{27}"),
    token("NVIDIA", &["nvapi-"], r"[A-Za-z0-9_-]{40,}"),
    token("Replicate", &["r8_"], r"[A-Za-z0-9]{37}"),
    token("Contentful", &["CFPAT-"], r"[A-Za-z0-9_-]{40,}"),
    token("Typeform", &["tfp_"], r"[A-Za-z0-9_=.-]{40,}"),
    token("OpenShift", &["sha256~"], r"[A-Za-z0-9_-]{43}"),
];

/// The pattern of all that a detector finds; the first group is the token.
pub fn pattern(detector: Detector) -> String {
    let all: Vec<String> = MAKERS
        .iter()
        .filter(|maker| maker.detector == detector)
        .map(|maker| {
            let begins: Vec<String> = maker.begins.iter().map(|b| regex::escape(b)).collect();
            format!("(?:{}){}", begins.join("|"), maker.then)
        })
        .collect();
    format!(r"(?:\b|_)({})", all.join("|"))
}

/// How a detector's tokens begin.
pub fn begins(detector: Detector) -> impl Iterator<Item = &'static str> {
    MAKERS
        .iter()
        .filter(move |maker| maker.detector == detector)
        .flat_map(|maker| maker.begins.iter().copied())
}

/// A token is made of more than words: it has a digit, or capitals within.
pub fn is_token(text: &str) -> bool {
    text.bytes().skip(3).any(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_maker_s_tokens_are_found_by_the_pattern_of_the_table() {
        for maker in &MAKERS {
            let pattern = regex::Regex::new(&pattern(maker.detector)).unwrap();
            for begins in maker.begins {
                let found = pattern.captures(&format!("x {begins}")).is_some();
                assert!(!found, "{begins} alone is no token of {}", maker.name);
            }
        }
    }
}
