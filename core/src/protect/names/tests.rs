use super::*;

#[test]
fn words_and_suffixes_tell() {
    for name in [
        "password",
        "Password",
        "db_password",
        "dbPassword",
        "userpassword",
        "DB-PASSWORD",
        "password2",
        "new_password",
        "passwordConfirmation",
        "user[password]",
        "passwd",
        "Client-Secret",
        "clientsecret",
        "client_secret_value",
        "token",
        "csrf_token",
        "X-CSRF-Token",
        "xsrfToken",
        "private-token",
        "PRIVATE-TOKEN",
        "x-vault-token",
        "access_token",
        "idToken",
        "apikey",
        "api_key",
        "X-API-Key",
        "apiKey2",
        "x-functions-key",
        "Ocp-Apim-Subscription-Key",
        "signing_key",
        "encryptionKey",
        "secretkey",
        "AccountKey",
        "aws_secret_access_key",
        "authorization",
        "Proxy-Authorization",
        "cookie",
        "Set-Cookie",
        "session_cookie",
        "db_pass",
        "credentials",
        "JSESSIONID",
        "PHPSESSID",
        "passphrase",
        "webhook_secret",
        "X-Amz-Security-Token",
        "pwd",
        "ssh_private_key",
        "jwt",
    ] {
        let told = told(name);
        assert!(matches!(told, Told::Secret | Told::Key), "{name}");
    }
    for name in ["otp", "totp_code", "pin", "CVV", "cvc2", "mfaCode", "verification_code"] {
        assert_eq!(told(name), Told::Code, "{name}");
    }
    for name in [
        "pass",
        "stripe_live_key",
        "tenant_key",
        "sig",
        "sid",
        "session_id",
        "csrf",
        "saml_response",
        "connectionString",
    ] {
        assert_eq!(told(name), Told::IfOpaque, "{name}");
    }
    for (name, says) in [
        ("passwort_neu", Told::Secret),
        ("tokenA", Told::Secret),
        ("REDIS_AUTH", Told::IfCredential),
        ("GITHUB_PAT", Told::IfCredential),
        ("device_code", Told::Code),
        ("requestApiKey", Told::Nothing),
        ("sec-websocket-key", Told::Nothing),
        ("tokens", Told::EachIfOpaque),
        ("auth", Told::IfCredential),
        ("pw", Told::Secret),
        ("seed_phrase", Told::Secret),
        ("wifi_psk", Told::Secret),
        ("Contraseña", Told::Secret),
        ("mot_de_passe", Told::Secret),
        ("Пароль", Told::Secret),
        ("密码", Told::Secret),
    ] {
        assert_eq!(told(name), says, "{name}");
    }
}

#[test]
fn words_that_only_sound_like_it_do_not() {
    for name in [
        "",
        "a",
        "key",
        "keys",
        "monkey",
        "turkey",
        "public_key",
        "primaryKey",
        "partition_key",
        "token_type",
        "tokenCount",
        "max_token_length",
        "next_page_token",
        "nextToken",
        "continuationToken",
        "password_policy",
        "secretName",
        "key_id",
        "passed",
        "bypass",
        "compass",
        "cookie_name",
        "status_code",
        "country_code",
        "spin",
        "shipping",
        "adopt",
        "keyboard",
        "author",
        "idempotency_key",
        "cache-key",
        "passenger",
        "design",
        "secretary",
        "credit",
        "pinned",
        "encoded",
        "authz",
        "authenticated",
        "president",
        "inside",
        "connection",
        "phrase",
        "shipwrecks",
    ] {
        assert_eq!(told(name), Told::Nothing, "{name}");
    }
}

#[test]
fn every_name_that_tells_has_a_word_of_the_prefilter() {
    for ending in ENDINGS.iter().chain(&[
        "auth",
        "pw",
        "csrf",
        "sid",
        "connectionstring",
        "token",
        "key",
        "code",
        "cookie",
        "cookies",
        "sig",
    ]) {
        assert!(WORDS.iter().any(|word| ending.contains(word)), "{ending}");
    }
}

#[test]
fn what_stands_for_a_secret_is_none() {
    for text in ["", "***", "[REDACTED]", "${DB_PASSWORD}", "{{ password }}", "<masked>", "?"] {
        assert!(!is_secret(Told::Secret, text), "{text}");
    }
    for text in ["hunter2", "secret", "correct horse", "0"] {
        assert!(is_secret(Told::Secret, text), "{text}");
    }
    for text in
        ["vault:secret/data/db#password", "var.db_password", "io.jwt.decode(input.token)", "write"]
    {
        assert!(!is_secret(Told::Secret, text), "{text}");
    }
    assert!(!is_secret(Told::Key, "db-password") && is_secret(Told::Key, "hunter"));
    assert!(is_secret(Told::Secret, "password") && !is_secret(Told::Secrets, "db_password"));
    for text in ["basic", "oauth2", "mTLS"] {
        assert!(!is_secret(Told::IfCredential, text), "{text}");
    }
    assert!(is_secret(Told::IfCredential, "YWJjOmRlZg=="));
    for text in [
        "yes",
        "S-1-5-21-3623811015-3361044348-30300820-1013",
        "order-12345",
        "us-east-1",
        "550e8400-e29b-41d4-a716-446655440000",
        "/etc/x",
    ] {
        assert!(!is_secret(Told::IfOpaque, text), "{text}");
    }
}
