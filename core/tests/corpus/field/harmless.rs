//! Inputs that hold nothing secret.

use serde_json::json;

use super::{Field, base64, hex};

pub fn write(f: &Field) {
    addresses(f);
    definitions(f);
    identifiers(f);
    encoded(f);
}

/// What has an `@` and is nobody's address.
fn addresses(f: &Field) {
    for form in [
        "git@github.com:acme/shop-<3.s>.git",
        "git@gitlab.example:team/app<2.d>.git",
        "deploy@build.example:/srv/app<2.d>",
        "ssh://git@github.com/acme/app<2.d>.git",
        "git+ssh://git@bitbucket.org/team/repo<2.d>.git",
        "ssh://deploy@build.example:22/srv/<3.s>",
        "rsync -a out/ backup@files.example:/data/<3.s>/",
        "scp a.txt root@10.0.0.<1.d>:/tmp/",
        "svn+ssh://ci@svn.example/repo<2.d>",
        "lodash@4.17.<2.d>",
        "react-dom@18.3.0-rc.<1.d>",
        "@angular/core@16.0.<1.d>",
        "@types/node@^20.<1.d>.0",
        "serde@1.0.<2.d>",
        "golang.org/x/net@v0.2<1.d>.0",
        "github.com/acme/lib/v2@v2.0.0-20261124-<12.h>",
        "pkg:npm/%40angular/core@16.0.<1.d>",
        "pkg:deb/debian/curl@7.50.<1.d>-1?arch=i386",
        "actions/checkout@v<1.d>",
        "acme/shop/.github/workflows/ci.yml@refs/tags/v1.<2.d>",
        "docker.io/library/nginx@sha256:<64.h>",
        "ghcr.io/acme/app:1.<2.d>@sha256:<64.h>",
        "python@3.12.<1.d>",
        "next@latest, vue@next, left-pad<2.d>@beta.2",
        "getty@tty<1.d>.service",
        "wg-quick@wg<1.d>.service",
        "icon@2x.png",
        "logo-<2.d>@3x.webp",
        "https://medium.example/@ann/post-<4.h>",
        "java.lang.Object@<8.h>",
        "HEAD@{<1.d>}",
        "postgres@10.0.0.<1.d>",
        "cc @ann and @bob<2.d>",
        "https://cdn.example/npm/vue@3.4.<2.d>/dist/vue.js",
        "https://unpkg.com/@scope/ui@1.<2.d>.0/index.js",
        "sha1:<8.h>@main",
        "@Secured(\"ROLE_<4.U>\")",
        "user<2.d>@localhost",
        "x@y",
    ] {
        f.document("addresses of things", json!({"ref": {"value": f.k(form)}}));
    }
}

/// Words that name secrets where there are none.
fn definitions(f: &Field) {
    let kind = "definitions and policies";
    f.document(kind, json!({"rules": [{"apiGroups": [""], "resources": ["secrets", "configmaps", f.k("r<3.s>")], "verbs": ["get", "list"]}]}));
    f.document(kind, json!({"schema": {"required": ["username", "password", f.k("f<3.s>")], "properties": {"password": {"type": "string", "minLength": 12}}}}));
    f.document(kind, json!({"securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "X-API-Key"}}, "n": f.k("n<3.s>")}));
    f.document(kind, json!({"fields": [{"name": "password", "type": "string", "required": true}, {"name": "token", "type": f.k("t<3.s>")}]}));
    f.document(
        kind,
        json!({"errors": [{"field": "password", "message": f.k("must have <2.d> characters")}]}),
    );
    f.document(kind, json!({"errors": [{"field": "token", "code": "expired", "at": f.k("2026-11-24T12:<2.d>:01Z")}]}));
    f.document(
        kind,
        json!({"columns": ["id", "password", "email", f.k("c<3.s>")], "order": ["token", "asc"]}),
    );
    f.document(kind, json!({"scopes": ["token", "profile", f.k("s<3.s>")]}));
    f.document(
        kind,
        json!({"valueFrom": {"secretKeyRef": {"name": f.k("db-<4.s>"), "key": "password"}}}),
    );
    f.document(kind, json!({"volumes": [{"secret": {"secretName": f.k("tls-<4.s>")}}, {"projected": {"sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}]}}]}));
    f.document(kind, json!({"args": ["--tls-private-key-file=/etc/k/tls.key", "--authorization-mode=Node,RBAC", "--token-ttl", f.k("3<3.d>"), "--password-file", f.k("/run/secrets/p<2.d>")]}));
    f.document(kind, json!({"args": ["--service-account-signing-key-file", f.k("/etc/k/sa<2.d>.key"), "--secure-port=6443", "--kubelet-client-key=/etc/k/c.key"]}));
    f.document(kind, json!({"args": ["kubectl", "get", "secret", f.k("db-<4.s>"), "-o", "yaml"]}));
    f.document(kind, json!({"args": ["vault", "token", "lookup", f.k("acc<4.d>")]}));
    f.document(kind, json!({"Statement": [{"Action": ["secretsmanager:GetSecretValue", "kms:Decrypt"], "Resource": f.k("arn:aws:secretsmanager:eu-west-1:<12.d>:secret:prod/db-<6.a>")}]}));
    f.document(kind, json!({"query": "{ user { id password token } }", "op": f.k("Q<3.s>")}));
    f.document(kind, json!({"query": "query Q($token: String!, $password: String!) { me(token: $token) { id } }", "op": f.k("Q<3.s>")}));
    f.document(kind, json!({"sql": f.k("SELECT password, token FROM users WHERE id = <3.d>")}));
    f.document(
        kind,
        json!({"code": f.k("if password == nil { return errors.New(\"no password <2.d>\") }")}),
    );
    f.document(
        kind,
        json!({"rego": "deny if { input.user.password == \"\" }", "n": f.k("n<3.s>")}),
    );
    f.document(kind, json!({"env": [{"name": "DB_PASSWORD", "value": "$(DB_PASSWORD)"}, {"name": "TOKEN_TTL", "value": f.k("36<2.d>")}, {"name": "API_KEY", "value": "${API_KEY}"}]}));
    f.document(kind, json!({"env": {"NPM_TOKEN": "${{ secrets.NPM_TOKEN }}", "PASSWORD_FILE": f.k("/run/secrets/pw<2.d>")}, "secrets": "inherit"}));
    f.document(kind, json!({"automountServiceAccountToken": false, "tokenExpirationSeconds": 3600, "rotateToken": true, "n": f.k("n<3.s>")}));
    f.document(kind, json!({"sensitive_values": {"password": true, "secret": true, "tags": {}}, "n": f.k("n<3.s>")}));
    f.document(kind, json!({"password_length": 16, "min_password_age": 1, "password_last_changed": f.k("2026-11-24T12:<2.d>:01Z"), "has_password": true}));
    f.document(kind, json!({"usage": {"prompt_tokens": 812, "completion_tokens": 64, "total_tokens": 876, "model": f.k("m-<3.s>")}}));
    f.document(kind, json!({"yaml": f.k("secretKeyRef:\n  name: db-<4.s>\n  key: password\n")}));
    f.document(kind, json!({"yaml": f.k("password:\n  minLength: 1<1.d>\n  rotate: true\n")}));
    f.document(kind, json!({"html": f.k("<label for=\"password\">Password</label><input type=\"password\" name=\"pw\" id=\"i<2.d>\">")}));
    f.document(kind, json!({"xml": f.k("<xs:element name=\"password\" type=\"xs:string\" minOccurs=\"<1.d>\"/>")}));
    f.document(kind, json!({"message": f.k("token for user u<4.d> has expired")}));
    f.document(kind, json!({"message": f.k("Invalid password (attempt <1.d> of 5)")}));
    f.document(kind, json!({"message": f.k("cookie: consent banner v<1.d> shown")}));
    f.document(kind, json!({"permission": f.k("secrets:read:team<2.d>"), "action": "password.reset", "resource": "api-key"}));
    f.document(kind, json!({"attributes": [{"key": "token.type", "value": {"stringValue": "Bearer"}}, {"key": "http.route", "value": {"stringValue": f.k("/tokens/{id}/<2.d>")}}]}));
    f.document(kind, json!({"filter": [["type", "secret"], ["kind", f.k("k<3.s>")]]}));
    f.document(
        kind,
        json!({"path": ["v1", "secrets", "db", f.k("p<3.s>")], "action": ["password", "reset"]}),
    );
}

fn identifiers(f: &Field) {
    for form in [
        "<8.h>-<4.h>-4<3.h>-8<3.h>-<12.h>",
        "<32.h>",
        "<16.h>",
        "<40.h>",
        "sha384-<64.u>",
        "W/\"<20.h>\"",
        "arn:aws:iam::<12.d>:role/ci",
        "projects/p<4.d>/serviceAccounts/ci",
        "/subscriptions/<8.h>-<4.h>-4<3.h>-8<3.h>-<12.h>/resourceGroups/rg<2.d>",
        "cus_<14.a>",
        "pi_3<23.a>",
        "ch_<24.a>",
        "evt_1<23.a>",
        "U0<9.U>",
        "C0<9.U>",
        "2001:db8::<4.h>:<4.h>",
        "02:42:ac:11:00:0<1.d>",
        "17<8.d>",
        "17<11.d>",
        "17<14.d>",
        "1.2.<2.d>-beta.4+sha.<7.h>",
        "v2026.11.<2.d>",
        "CVE-2026-<5.d>",
        "JIRA-<5.d>",
        "+44 20 7946 0<3.d>",
        "(555) 010-<4.d>",
        "SKU-<8.d>",
        "ISBN 978-3-16-14841<1.d>-0",
        "1Z999AA1<10.d>",
        "urn:uuid:<8.h>-<4.h>-4<3.h>-8<3.h>-<12.h>",
        "did:key:z6Mk<44.a>",
        "0x<40.h>",
        "pk_test_<24.a>",
        "pk_live_<24.a>",
        "ssh-rsa AAAAB3NzaC1yc2E<60.a> ann",
        "SHA256:<43.a>",
        "2026-W48-<1.d>",
        "52.5200<2.d>, 13.4049<2.d>",
        "JBSWY3DPEHPK<1.d> units",
        "de<2.d> be<2.d>",
        "gb<2.d>west",
        "fr7630006000011234567890188 <2.d>",
        "4<2.d> 4<3.d> 4<1.d>",
        "<4.d> <4.d> <4.d>",
    ] {
        f.document("identifiers and numbers", json!({"id": f.k(form), "list": [f.k(form)]}));
    }
    f.document(
        "identifiers and numbers",
        json!({"amount": 41, "order": 2_026_112_400_001_u64, "ratio": 0.125, "n": f.k("n<3.s>")}),
    );
}

fn encoded(f: &Field) {
    let kind = "encoded";
    let page = json!({"page": 2, "after": "2026-11-24"}).to_string();
    f.document(kind, json!({"cursor": base64(&page), "n": f.k("n<3.s>")}));
    f.document(kind, json!({"hex": hex(&page), "n": f.k("n<3.s>")}));
    f.document(kind, json!({"body": page, "n": f.k("n<3.s>")}));
    f.document(kind, json!({"body": "a=1&b=%7B%22x%22%3A1%7D&c=%2520", "n": f.k("n<3.s>")}));
    f.document(
        kind,
        json!({"html": f.k("&lt;b&gt;Tom &amp; Ann&lt;/b&gt; said &quot;hi <2.d>&quot;")}),
    );
    f.document(kind, json!({"image": f.k("data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAA<60.a>")}));
    f.document(kind, json!({"cert": f.k("-----BEGIN CERTIFICATE-----\nMIIB<60.a>\n-----END CERTIFICATE-----\n")}));
    f.document(kind, json!({"yaml": f.k("a:\n  b: <3.d>\n  c: [x, y]\n")}));
    f.document(kind, json!({"text": f.k("caf\\u00e9 <3.d>")}));
    f.document(kind, json!({"text": f.k("100%25 of <3.d>%")}));
}
