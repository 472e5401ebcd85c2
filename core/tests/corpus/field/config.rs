//! What admission controllers, pipelines and scripts ask about: configuration.

use serde_json::json;

use super::{Field, base64};

pub fn write(f: &Field) {
    kubernetes(f);
    terraform(f);
    pipelines(f);
    connections(f);
    files(f);
    clouds(f);
}

fn pem(f: &Field, kind: &str) -> String {
    let dashes = "-----";
    let body = f.s("MII<61.a>");
    format!(
        "{dashes}BEGIN {kind}{dashes}\n{body}\n{}==\n{dashes}END {kind}{dashes}\n",
        f.s("<62.a>")
    )
}

fn kubernetes(f: &Field) {
    let kind = "Kubernetes";
    f.document(
        kind,
        json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": f.k("<8.h>-<4.h>-4<3.h>-8<3.h>-<12.h>"), "kind": {"group": "", "version": "v1", "kind": "Secret"},
            "object": {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f.k("db-<5.s>"), "namespace": f.k("shop-<3.s>")},
                "type": "Opaque", "data": {"url": base64(&f.s("<14.a>")), "pw": base64(&f.s("<9.a>"))},
                "stringData": {"license": f.s("<5.U>-<5.U>-<5.U>")}}}}),
    );
    f.document(
        kind,
        json!({"kind": "Secret", "type": "kubernetes.io/dockerconfigjson", "metadata": {"name": f.k("regcred-<3.s>")},
            "data": {".dockerconfigjson": base64(&json!({"auths": {"ghcr.io": {"username": "bot",
                "password": f.s("<18.a>"), "auth": base64(&format!("bot:{}", f.s("<18.a>")))}}}).to_string())}}),
    );
    f.document(
        kind,
        json!({"kind": "ConfigMap", "metadata": {"name": f.k("app-<5.s>")}, "data": {
            "application.yaml": format!("spring:\n  datasource:\n    url: {}\n    username: app\n    password: {}\n  jpa:\n    open-in-view: false\n",
                f.k("jdbc:postgresql://db-<3.s>:5432/orders"), f.s("<10.a>")),
            "application.properties": format!("spring.mail.host={}\nspring.mail.password={}\nserver.port=8080\n",
                f.k("smtp-<3.s>.example"), f.s("<6.l>!<3.d>")),
            ".env": format!("DEBUG=false\nSTRIPE_SECRET_KEY={}\nexport REDIS_PASSWORD='{}'\nREGION={}\n",
                f.s("sk_live_<24.a>"), f.s("<8.a> x"), f.k("eu-<3.l>-1")),
            "config.toml": format!("[db]\nhost = \"{}\"\npassword = \"{}\"\n", f.k("db-<4.s>.svc"), f.s("<12.a>"))}}),
    );
    f.document(
        kind,
        json!({"kind": "Pod", "spec": {"imagePullSecrets": [{"name": f.k("pull-<4.s>")}], "containers": [{
            "name": "app", "image": f.k("registry.example/shop/app:1.<2.d>@sha256:<64.h>"),
            "env": [{"name": "DB_PASSWORD", "value": f.s("<9.a>")}, {"name": "DB_HOST", "value": f.k("db-<4.s>.shop.svc")},
                {"name": "API_KEY", "valueFrom": {"secretKeyRef": {"name": f.k("api-<4.s>"), "key": "api_key"}}}],
            "args": ["--listen=:8080", format!("--db-password={}", f.s("<8.a>")), "--api-token", f.s("<20.a>"),
                "--log-level", f.k("debug<1.d>"), "--token-ttl", f.k("36<2.d>s")],
            "command": ["sh", "-c", format!("PGPASSWORD={} psql -h db-{} -U app", f.s("<9.a>"), f.k("<4.s>"))]}]}}),
    );
    f.document(
        kind,
        json!({"metadata": {"name": "db", "uid": f.k("<8.h>-<4.h>-4<3.h>-8<3.h>-<12.h>"), "annotations": {
            "kubectl.kubernetes.io/last-applied-configuration": json!({"kind": "Secret", "metadata": {"name": "db"},
                "stringData": {"any": f.s("<16.a>")}}).to_string() + "\n",
            "checksum/config": f.k("<64.h>")}}}),
    );
    f.document(
        kind,
        json!({"kind": "TokenReview", "spec": {"token": f.s("<40.u>"), "audiences": [f.k("https://kubernetes-<3.s>.default.svc")]}}),
    );
    f.document(
        kind,
        json!({"kubeconfig": format!("apiVersion: v1\nclusters:\n- name: {}\nusers:\n- name: admin\n  user:\n    token: {}\n    client-key-data: {}\n",
            f.k("prod-<4.s>"), f.s("<32.a>"), base64(&pem(f, "EC PRIVATE KEY")))}),
    );
    f.document(
        kind,
        json!({"kind": "HelmRelease", "spec": {"chart": f.k("redis-1<1.d>.0.<1.d>"), "values": {"auth": {"password": f.s("<14.a>")},
            "existingSecret": f.k("redis-<4.s>"), "values.yaml": format!("auth:\n  rootPassword:\n    {}\n  enabled: true\n", f.s("<10.a>"))}}}),
    );
    f.document(kind, json!({"tls": {"crt": f.k("MIID<40.a>"), "key": pem(f, "PRIVATE KEY")}}));
}

fn terraform(f: &Field) {
    let kind = "Terraform";
    f.document(
        kind,
        json!({"terraform_version": f.k("1.9.<1.d>"), "variables": {"db_password": {"value": f.s("<12.a>")}, "region": {"value": f.k("eu-west-<1.d>a")}},
            "planned_values": {"root_module": {"resources": [
                {"address": f.k("aws_db_instance.db<2.d>"), "type": "aws_db_instance", "values": {"password": f.s("<16.a>"), "port": 5432,
                    "kms_key_id": f.k("arn:aws:kms:eu-central-1:<12.d>:key/<8.h>"), "snapshot_identifier": null}},
                {"address": "aws_rds_cluster.c", "values": {"master_password": f.s("<11.a>!"), "master_username": f.k("root<2.d>")}}]}}}),
    );
    f.document(
        kind,
        json!({"resource_changes": [{"address": "aws_iam_access_key.ci", "change": {"actions": ["create"], "before": null,
            "after": {"id": f.s("AKIA<16.U>"), "secret": f.s("<40.a>"), "ses_smtp_password_v4": f.s("<44.a>"), "user": f.k("ci-<4.s>"), "status": "Active"},
            "after_sensitive": {"secret": true, "ses_smtp_password_v4": true}}}]}),
    );
    f.document(
        kind,
        json!({"values": {"outputs": {"storage_key": {"sensitive": true, "value": f.s("<86.a>==")}, "vpc": {"value": f.k("vpc-0<16.h>")}},
            "azurerm_storage_account": {"name": f.k("st<8.s>"), "primary_access_key": f.s("<86.a>=="),
                "primary_connection_string": format!("DefaultEndpointsProtocol=https;AccountName=st1;AccountKey={};EndpointSuffix=core.windows.net", f.s("<86.a>=="))}}}),
    );
    let key = json!({"type": "service_account", "project_id": "p", "private_key_id": f.form("<40.h>"), "private_key": pem(f, "PRIVATE KEY")});
    f.document(
        kind,
        json!({"google_service_account_key": {"private_key": base64(&key.to_string()), "public_key_type": "TYPE_X509_PEM_FILE", "valid_after": f.k("2026-11-24T00:00:<2.d>Z")}}),
    );
    f.document(
        kind,
        json!({"tls_private_key": {"algorithm": "ED25519", "private_key_openssh": pem(f, "OPENSSH PRIVATE KEY"), "public_key_openssh": f.k("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI<43.a>"),
            "public_key_fingerprint_sha256": f.k("SHA256:<43.a>")}}),
    );
    f.document(
        kind,
        json!({"user_data": base64(&format!("#cloud-config\nusers:\n- name: ops\n  passwd: {}\nruncmd:\n- [ docker, login, -u, bot, --password, {} ]\n", f.s("<13.a>"), f.s("<15.a>")))}),
    );
}

fn pipelines(f: &Field) {
    let kind = "CI";
    f.document(
        kind,
        json!({"env": {"GITHUB_TOKEN": f.s("ghs_<36.a>"), "GITHUB_SHA": f.k("<40.h>"), "GITHUB_REPOSITORY": f.k("acme/shop-<3.s>"),
            "NPM_TOKEN": f.s("npm_<36.a>"), "AWS_SECRET_ACCESS_KEY": f.s("<40.a>"), "AWS_SESSION_TOKEN": f.s("<200.a>="),
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": f.s("<60.u>"), "ACTIONS_RUNTIME_TOKEN": f.s("<50.u>"), "GITHUB_RUN_ID": f.k("<11.d>"),
            "RUNNER_NAME": f.k("ubuntu-24-<4.d>")}}),
    );
    f.document(
        kind,
        json!({"job": {"workflow_ref": f.k("acme/shop/.github/workflows/ci-<3.s>.yml@refs/heads/main"), "uses": f.k("actions/checkout@v<1.d>"),
            "run": format!("curl -H \"Authorization: token {}\" https://api.example && docker login -p {} -u bot", f.s("<30.a>"), f.s("<12.a>"))}}),
    );
    f.document(
        kind,
        json!({"steps": ["npm ci", format!("npm config set //registry.npmjs.org/:_authToken={}", f.s("npm_<36.a>")),
            format!("git clone https://oauth2:{}@gitlab.example/{}.git", f.s("glpat-<20.u>"), f.k("team/app<3.d>"))]}),
    );
    f.document(
        kind,
        json!({"variables": [{"key": "DEPLOY_TOKEN", "value": f.s("<20.u>"), "masked": true, "environment_scope": f.k("prod-<2.d>")},
            {"key": "LOG_LEVEL", "value": f.k("debug<2.d>")}]}),
    );
    f.document(
        kind,
        json!({"script": format!("docker run -e POSTGRES_PASSWORD={} -e TZ=UTC -p 5432:5432 {}", f.s("<9.a>"), f.k("postgres:17.<1.d>"))}),
    );
    f.document(
        kind,
        json!({"cmdline": ["mysqldump", "-h", f.k("db<3.d>"), "--user=root", format!("--password={}", f.s("<10.a>")), "orders"]}),
    );
    f.document(
        kind,
        json!({"process": {"args": ["vault", "login", "-token", f.s("hvs.<95.u>")], "name": f.k("vault-<2.d>")},
            "command_line": format!("vault login --token {} --no-print", f.s("s.<24.a>"))}),
    );
    f.document(
        kind,
        json!({"cmd": format!("curl -sS -u admin:{} https://nexus.example/{}", f.s("<10.a>"), f.k("repo<3.d>"))}),
    );
}

fn connections(f: &Field) {
    let kind = "connection strings";
    let text = |secret: &str, before: &str, after: &str| {
        let input = json!({"target": {"dsn": format!("{before}{}{after}", f.s(secret)), "pool": f.k("pool-<4.d>")}});
        f.document(kind, input);
    };
    text("<9.a>", "postgresql+psycopg2://app:", "@db.internal:5432/orders?sslmode=require");
    text("<6.l>@<2.d>", "mysql://root:", "@10.0.0.4/shop");
    text("<24.a>", "rediss://:", "@cache.internal:6380/0");
    text("<12.a>", "mongodb+srv://svc:", "@cluster0.ab1cd.mongodb.net/?retryWrites=true");
    text("<12.a>", "amqps://guest:", "@mq.internal:5671/%2f");
    text("<8.a>", "host=db user=app password=", " dbname=orders sslmode=disable");
    text("<10.a>", "jdbc:postgresql://db:5432/orders?user=app&password=", "&ssl=true");
    text("<10.a>", "jdbc:sqlserver://db:1433;databaseName=shop;user=sa;password=", ";encrypt=true");
    text("<9.a>", "jdbc:oracle:thin:scott/", "@//db.internal:1521/ORCL");
    text("<12.a>", "app:", "@tcp(db.internal:3306)/orders?parseTime=true");
    text(
        "<12.a>",
        "Server=db,1433;Database=shop;User Id=sa;Password=",
        ";TrustServerCertificate=True",
    );
    text("<12.a>", "DRIVER={ODBC Driver 18};SERVER=db;UID=app;PWD=", ";");
    text(
        "<43.a>=",
        "Endpoint=sb://ns1.servicebus.windows.net/;SharedAccessKeyName=Root;SharedAccessKey=",
        ";EntityPath=q",
    );
    text("<86.a>==", "AccountEndpoint=https://x.documents.azure.com:443/;AccountKey=", ";");
    text("<43.a>=", "HostName=hub1.azure-devices.net;DeviceId=d1;SharedAccessKey=", "");
    text("<14.a>", "snowflake://etl:", "@acct-eu/DB/PUBLIC?warehouse=WH");
    text("<10.a>", "clickhouse://h:9000?username=default&password=", "&database=logs");
    text(
        "<11.a>",
        "org.apache.kafka.common.security.scram.ScramLoginModule required username=\"app\" password=\"",
        "\";",
    );
    text("<10.a>", "ldap://dc.corp.example?bindDN=cn=svc,dc=corp&bindPassword=", "&scope=sub");
    text("<16.a>", "smtps://mailer:", "@smtp.example:465");
    text("<10.a>", "ALTER USER app WITH PASSWORD '", "' VALID UNTIL '2027-01-01'");
    text("<10.a>", "CREATE USER app IDENTIFIED BY '", "'");
    text("<32.h>", "https://", "@o42.ingest.sentry.io/4501");
}

fn files(f: &Field) {
    let kind = "configuration files";
    f.document(
        kind,
        json!({"file": format!("[default]\naws_access_key_id = {}\naws_secret_access_key = {}\nregion = {}\n", f.s("AKIA<16.U>"), f.s("<40.a>"), f.k("eu-west-<2.d>"))}),
    );
    f.document(
        kind,
        json!({"netrc": format!("machine {} login bot password {}\n", f.k("git<3.d>.example"), f.s("<16.a>"))}),
    );
    f.document(
        kind,
        json!({"content": format!("database:\n  host: {}\n  password: \"{}\"\n  pool: 5\napi_keys:\n  - {}\n  - {}\n", f.k("db<3.d>.internal"), f.s("<9.a> z"), f.s("<20.a>"), f.s("<20.a>"))}),
    );
    f.document(
        kind,
        json!({"content": format!("tls:\n  cert: {}\n  private_key: |\n    {}\n    {}\n  port: 443\n", f.k("/etc/c<3.d>.pem"), f.s("<60.a>"), f.s("<40.a>"))}),
    );
    f.document(
        kind,
        json!({"content": format!("password: >-\n  {}\nuser: {}\n", f.s("<7.l> <7.l>"), f.k("app<3.d>"))}),
    );
    f.document(
        kind,
        json!({"patch": format!("@@ -1,3 +1,3 @@\n-  \"password\": \"{}\",\n+  \"password\": \"{}\",\n   \"host\": \"{}\"", f.s("<9.a>"), f.s("<9.a>"), f.k("h<4.d>"))}),
    );
    f.document(
        kind,
        json!({"ini": format!("; mail\n[smtp]\nuser = {}\npass = {}\n", f.k("mailer<2.d>"), f.s("<10.a>"))}),
    );
    f.document(
        kind,
        json!({"xml": format!("<server><id>{}</id><username>ci</username><password>{}</password></server>", f.k("nexus<3.d>"), f.s("{<43.a>=}"))}),
    );
    f.document(
        kind,
        json!({"env": [format!("DB_PASSWORD={}", f.s("<10.a>")), format!("PATH={}", f.k("/usr/local/bin<2.d>:/bin")), format!("SECRET_KEY_BASE={}", f.s("<128.h>"))]}),
    );
    f.document(
        kind,
        json!({"pgpass": format!("db.internal:5432:orders:app:{}", f.s("<12.a>")), "mode": f.k("06<2.d>")}),
    );
}

fn clouds(f: &Field) {
    let kind = "makers' keys";
    for form in [
        "ghp_<36.a>",
        "github_pat_<22.a>_<59.a>",
        "glpat-<20.u>",
        "xoxb-<12.d>-<13.d>-<24.a>",
        "sk_live_<24.a>",
        "AIza<35.u>",
        "hf_<34.a>",
        "sk-ant-api03-<93.u>AA",
        "sk-proj-<80.u>",
        "SG.<22.u>.<43.u>",
        "dop_v1_<64.h>",
        "AKIA<16.U>",
        "npm_<36.a>",
        "pypi-AgEIcHlwaS5vcmc<60.u>",
        "https://discord.com/api/webhooks/<18.d>/<68.u>",
        "<10.d>:AA<33.u>",
        "https://acme.webhook.office.com/webhookb2/<8.h>-<4.h>-4<3.h>-8<3.h>-<12.h>/IncomingWebhook/<32.h>",
        "AGE-SECRET-KEY-1<58.U>",
        "PMAK-<24.h>-<34.h>",
        "key-<32.h>",
        "EAACEdEose0cBA<40.a>",
        "pat-eu1-<8.h>-<4.h>-4<3.h>-8<3.h>-<12.h>",
        "nvapi-<64.u>",
        "r8_<37.a>",
        "xai-<80.a>",
        "pplx-<48.a>",
        "CFPAT-<43.u>",
        "dp.st.prd.<43.a>",
        "sbp_<40.h>",
        "tfp_<40.a>_<6.a>",
    ] {
        let input = json!({"comment": format!("I used {} for build {}", f.s(form), f.k("b<5.d>"))});
        f.document(kind, input);
    }
}
