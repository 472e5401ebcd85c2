//! What proxies, gateways and services ask about: requests.

use serde_json::json;

use super::{Field, base64, base64_url};
use crate::corpus::percent;

pub fn write(f: &Field) {
    envoy(f);
    gateways(f);
    sign_in(f);
    scim(f);
    graphql(f);
    markup(f);
}

fn jwt(f: &Field) -> String {
    let part = |text: String| base64_url(&text);
    f.note(format!(
        "{}.{}.{}",
        part(json!({"alg": "ES256", "kid": "k"}).to_string()),
        part(json!({"iss": "https://id.example", "sub": f.form("<12.s>")}).to_string()),
        f.form("<86.u>")
    ))
}

fn envoy(f: &Field) {
    let kind = "Envoy";
    f.document(
        kind,
        json!({"attributes": {
        "source": {"address": {"socketAddress": {"address": "10.1.2.3", "portValue": 41022}},
            "principal": f.k("spiffe://cluster.local/ns/shop/sa/cart-<3.s>")},
        "request": {"time": "2026-11-24T12:48:50.163Z", "http": {
            "id": f.k("<19.d>"), "method": "GET", "host": "cart.example",
            "path": format!("/v1/carts/{}?access_token={}", f.k("<8.d>"), f.s("<22.a>")),
            "headers": {
                ":authority": "cart.example",
                "authorization": format!("Bearer {}", jwt(f)),
                "cookie": format!("sid={}; theme=dark", f.s("<26.u>")),
                "x-request-id": f.k("<8.h>-<4.h>-4<3.h>-8<3.h>-<12.h>"),
                "x-b3-traceid": f.k("<32.h>"),
                "x-forwarded-client-cert": f.k("By=spiffe://cluster.local/ns/a/sa/b;Hash=<64.h>"),
                "user-agent": f.k("okhttp/4.<1.d>.<1.d>"),
            }}}}}),
    );
    f.document(
        kind,
        json!({"attributes": {"request": {"http": {"headerMap": {"headers": [
            {"key": ":path", "rawValue": base64("/v1/carts")},
            {"key": "x-api-key", "rawValue": base64(&f.s("<24.a>"))},
            {"key": "authorization", "rawValue": base64(&format!("Bearer {}", f.s("<30.u>")))},
            {"key": "x-request-id", "value": f.k("<8.h>-<4.h>-4<3.h>-8<3.h>-<12.h>")},
        ]}}}}}),
    );
    let (password, key) = (f.s("<4.l><2.d>!<3.a>"), f.k("ord-<8.d>"));
    f.document(
        kind,
        json!({"attributes": {"request": {"http": {
            "method": "POST", "path": "/login",
            "body": json!({"user": {"login": "bob", "password": password}, "order": key}).to_string(),
        }}}, "parsed_body": {"user": {"login": "bob", "password": password}, "order": key}}),
    );
    f.document(
        kind,
        json!({"attributes": {"request": {"http": {
            "path": f.k("/reset?lang=en&page=<2.d>"),
            "headers": {
                "x-goog-iap-jwt-assertion": jwt(f),
                "x-amzn-oidc-accesstoken": f.s("<40.u>"),
                "x-envoy-original-path": format!("/reset?lang=en&reset_token={}", f.s("<20.a>")),
                "referer": format!("https://mail.example/r?api_key={}&x=1", f.s("<18.a>")),
                "x-auth-request-email": f.s("<5.l>.<6.l>@corp.example"),
                "grpc-timeout": "1S",
                "x-envoy-peer-metadata-id": f.k("sidecar~10.4.<2.d>.7~cart-<5.s>.shop~shop.svc.cluster.local"),
            }}}}}),
    );
    f.document(
        kind,
        json!({"attributes": {"request": {"http": {
            "headers": {"content-type": "application/grpc", "x-tenant": f.k("t-<5.d>")},
            "rawBody": base64(&json!({"refresh_token": f.s("<40.u>")}).to_string()),
        }}}}),
    );
}

fn gateways(f: &Field) {
    let kind = "API gateways";
    f.document(
        kind,
        json!({"requestContext": {"accountId": f.k("<12.d>"), "requestId": f.k("<8.h>-<4.h>-4<3.h>-8<3.h>-<12.h>"),
                "identity": {"apiKey": f.s("<40.a>"), "sourceIp": "203.0.113.9"}},
            "multiValueHeaders": {"X-Api-Key": [f.s("<40.a>")], "Accept": [f.k("application/vnd.acme.v<1.d>+json")]},
            "queryStringParameters": {"page": "2", "sig": f.s("<43.u>")}}),
    );
    f.document(
        kind,
        json!({"rawHeaders": ["Host", f.k("api-<3.s>.example"), "Authorization", format!("Token {}", f.s("<40.h>")),
            "X-Shopify-Access-Token", f.s("<32.h>"), "Accept-Encoding", f.k("gzip;q=0.<2.d>")]}),
    );
    f.document(
        kind,
        json!({"scope": {"type": "http", "headers": [["host", f.k("svc-<4.s>.example")],
            ["authorization", format!("Bearer {}", f.s("<24.u>"))], ["x-csrftoken", f.s("<32.a>")],
            ["accept-language", f.k("de-DE,en;q=0.<1.d>")]]}}),
    );
    f.document(
        kind,
        json!({"grpc": {"metadata": {"authorization": [format!("bearer {}", f.s("<16.a>"))],
            "x-session-token": [f.s("<12.a>")], "x-retry-count": [f.k("<2.d>")]}}}),
    );
    f.document(
        kind,
        json!({"eventName": "CreateDBInstance", "requestParameters": {
            "dBInstanceIdentifier": f.k("orders-<4.s>"), "masterUsername": f.k("admin<2.d>"),
            "masterUserPassword": f.s("<10.a>#1"), "kmsKeyId": f.k("arn:aws:kms:eu-central-1:<12.d>:key/<8.h>")}}),
    );
    f.document(
        kind,
        json!({"req": {"url": format!("https://minio.example/b/o?X-Amz-Credential={}%2F20261124%2Feu%2Fs3%2Faws4_request&X-Amz-Signature={}", f.s("AKIA<16.U>"), f.s("<64.h>")),
            "key": f.k("reports/2026/<6.d>.csv")}}),
    );
    f.document(
        kind,
        json!({"blob": format!("https://{}.blob.core.windows.net/c/x.csv?sv=2024-11-04&se=2026-12-01&sr=b&sp=r&sig={}",
            f.k("store<6.d>"), f.note(percent(&f.form("<43.a>="))))}),
    );
    f.document(
        kind,
        json!({"http": {"request": {"line": format!("GET /hook?token={} HTTP/1.1", f.s("<20.a>")),
            "raw": format!("POST /x HTTP/1.1\r\nHost: {}\r\nX-Gitlab-Token: {}\r\nCookie: a={}\r\nContent-Length: 12\r\n\r\n",
                f.k("h-<5.s>.example"), f.s("<14.a>"), f.s("<18.a>"))}}}),
    );
}

fn sign_in(f: &Field) {
    let kind = "sign-in and OAuth";
    f.document(
        kind,
        json!({"body": format!("grant_type=password&username={}&password={}&scope={}", f.k("bob<3.d>"),
            f.s("<7.l>%21<2.d>"), f.k("orders.read<2.d>"))}),
    );
    f.document(
        kind,
        json!({"form": format!("grant_type=authorization_code&client_id={}&client_secret={}&code_verifier={}&redirect_uri=https%3A%2F%2Fapp.example%2Fcb",
            f.k("web-<6.s>"), f.s("<32.a>"), f.s("<43.u>"))}),
    );
    f.document(
        kind,
        json!({"form": {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": jwt(f),
            "client_assertion_type": f.k("urn:ietf:params:oauth:client-assertion-type:jwt-bearer")}}),
    );
    f.document(
        kind,
        json!({"request_body": format!("token={}&token_type_hint=refresh_token&client_id={}", f.s("<36.u>"), f.k("svc-<4.s>"))}),
    );
    f.document(
        kind,
        json!({"response": {"access_token": f.s("<40.u>"), "refresh_token": f.s("1//0<60.u>"), "id_token": jwt(f),
            "token_type": "Bearer", "expires_in": 3600, "scope": f.k("openid profile team<2.d>")}}),
    );
    f.document(
        kind,
        json!({"url": format!("https://id.example/logout?id_token_hint={}&post_logout_redirect_uri=https%3A%2F%2Fapp.example", jwt(f))}),
    );
    f.document(
        kind,
        json!({"url": format!("https://app.example/cb#access_token={}&token_type=bearer&expires_in=3600&state={}", f.s("<32.u>"), f.form("<8.a>"))}),
    );
    f.document(
        kind,
        json!({"user": f.k("u-<6.d>"), "mfa": {"otp": f.s("<6.d>"), "backupCodes": [f.s("<4.s>-<4.s>"), f.s("<4.s>-<4.s>")]},
            "device": f.k("iPhone <2.d>,1")}),
    );
    f.document(
        kind,
        json!({"change": {"oldPassword": f.s("<9.l>1"), "newPassword": f.s("<9.l>2"), "confirmPassword": f.s("<9.l>3"),
            "passwordHint": "dog"}, "who": f.k("emp<5.d>")}),
    );
    f.document(
        kind,
        json!({"webauthn": {"credentialId": f.k("<22.u>"), "rpId": "login.example"}, "recoveryCode": f.s("<5.U>-<5.U>")}),
    );
    f.document(
        kind,
        json!({"headers": {"Authorization": format!("Digest username=\"bob\", realm=\"{}\", nonce=\"abc\", response=\"{}\"",
            f.k("realm-<4.s>"), f.s("<32.h>"))}}),
    );
    f.document(
        kind,
        json!({"headers": {"Authorization": format!("AWS4-HMAC-SHA256 Credential={}/20261124/eu-central-1/s3/aws4_request, SignedHeaders=host, Signature={}",
            f.s("ASIA<16.U>"), f.s("<64.h>")), "X-Amz-Date": f.k("20261124T1248<2.d>Z")}}),
    );
}

fn scim(f: &Field) {
    let kind = "SCIM";
    f.document(
        kind,
        json!({"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": f.k("bjensen<3.d>"),
            "externalId": f.k("<10.d>"), "password": f.s("t1meMa<4.l>"),
            "emails": [{"value": f.s("<7.l>@corp.example"), "type": "work", "primary": true}],
            "name": {"formatted": "Ms. Barbara J Jensen III"},
            "meta": {"version": f.k("W/<16.h>"), "location": f.k("https://scim.example/v2/Users/<8.h>")}}),
    );
    f.document(
        kind,
        json!({"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": [
            {"op": "replace", "path": "password", "value": f.s("<8.l>9!")},
            {"op": "replace", "path": "displayName", "value": f.k("Bob <4.d>")}]}),
    );
    f.document(
        kind,
        json!({"filter": format!("userName eq \"{}\"", f.s("<6.l>.<5.l>@corp.example")), "count": f.k("<3.d>")}),
    );
    f.document(
        kind,
        json!({"Attributes": [{"Name": "email", "Value": f.s("<8.l>@shop.example")}, {"Name": "custom:tier", "Value": f.k("gold<2.d>")},
            {"Name": "custom:api_key", "Value": f.s("<20.a>")}]}),
    );
}

fn graphql(f: &Field) {
    let kind = "GraphQL";
    f.document(
        kind,
        json!({"query": format!("mutation {{ login(username: \"{}\", password: \"{}\") {{ user {{ id }} }} }}",
            f.k("bob<4.d>"), f.s("<6.l> <3.d>"))}),
    );
    f.document(
        kind,
        json!({"operationName": f.k("SignUp<2.d>"), "query": "mutation($i: In!) { signUp(input: $i) { id token } }",
            "variables": {"i": {"email": f.s("<6.l>@web.example"), "password": f.s("<12.a>"), "plan": f.k("pro<2.d>")}}}),
    );
    f.document(
        kind,
        json!({"body": json!({"query": format!("mutation {{ createToken(input: {{name: \"{}\", secret: \"{}\"}}) {{ ok }} }}",
            f.k("ci-<3.d>"), f.s("<16.a>")), "variables": {}}).to_string()}),
    );
    f.document(
        kind,
        json!({"path": format!("/graphql?query={}", percent(&format!("{{ me(apiToken: \"{}\") {{ id }} }}", f.s("<20.a>"))))}),
    );
}

fn markup(f: &Field) {
    let kind = "SAML, SOAP, XML";
    let assertion = format!(
        "<samlp:Response ID=\"_{}\"><saml:Issuer>https://idp.example</saml:Issuer><saml:Subject><saml:NameID Format=\"urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress\">{}</saml:NameID></saml:Subject></samlp:Response>",
        f.form("<32.h>"),
        f.s("<6.l>@corp.example")
    );
    f.document(
        kind,
        json!({"body": format!("SAMLResponse={}&RelayState={}", percent(&base64(&assertion)), f.k("rs<6.d>"))}),
    );
    f.document(
        kind,
        json!({"envelope": format!("<soap:Header><wsse:UsernameToken><wsse:Username>{}</wsse:Username><wsse:Password Type=\"#PasswordText\">{}</wsse:Password></wsse:UsernameToken></soap:Header>",
            f.k("svc<4.d>"), f.s("<5.l>-<4.d>"))}),
    );
    f.document(
        kind,
        json!({"xml": format!("<login><user>{}</user><password>{}</password><remember>true</remember></login>", f.k("ann<3.d>"), f.s("<8.a>!"))}),
    );
    f.document(
        kind,
        json!({"xml": format!("<add name=\"{}\" connectionString=\"Server=db;User Id=app;Password={};\" /><machineKey decryptionKey=\"{}\" />",
            f.k("Orders<2.d>"), f.s("<11.a>"), f.s("<48.U>"))}),
    );
    f.document(
        kind,
        json!({"html": format!("<form><input type=\"hidden\" name=\"csrf_token\" value=\"{}\"><input name=\"page\" value=\"{}\"></form>", f.s("<32.a>"), f.k("p<4.d>"))}),
    );
    f.document(
        kind,
        json!({"body": format!("--XbX\r\nContent-Disposition: form-data; name=\"password\"\r\n\r\n{}\r\n--XbX\r\nContent-Disposition: form-data; name=\"title\"\r\n\r\n{}\r\n--XbX--\r\n",
            f.s("<10.a>"), f.k("Report <4.d>"))}),
    );
}
