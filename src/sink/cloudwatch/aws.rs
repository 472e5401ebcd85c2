//! AWS credentials and region, from where AWS's own tools have them, in their order: the environment, the profile
//! (keys, SSO, a process, a role), a web identity, a container, the instance.
//! <https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html>

use axum::http;
use bytes::Bytes;
use ini::Ini;
use reqsign_aws_v4::{
    AssumeRoleCredentialProvider, AssumeRoleWithWebIdentityCredentialProvider, Credential,
    ECSCredentialProvider, EnvCredentialProvider, IMDSv2CredentialProvider,
    ProcessCredentialProvider, ProfileCredentialProvider, RequestSigner, SSOCredentialProvider,
};
use reqsign_core::{Context, Error, OsEnv, ProvideCredential, ProvideCredentialDyn, Signer};

use super::aws_io::{Files, Http, Shell};
use crate::http::failure::chain;

type Provider = Box<dyn ProvideCredentialDyn<Credential = Credential>>;

/// Where credentials come from, and which region is meant.
pub struct Source {
    pub region: Option<String>,
    context: Context,
    profile: String,
    chain: Chain,
}

/// The first that has credentials. One that should have some and fails ends the search, as a later one's would be another's.
#[derive(Debug, Default)]
struct Chain(Vec<(&'static str, Provider)>);

impl Chain {
    fn push(
        &mut self,
        name: &'static str,
        provider: impl ProvideCredential<Credential = Credential>,
    ) {
        self.0.push((name, Box::new(provider)));
    }
}

impl ProvideCredential for Chain {
    type Credential = Credential;

    async fn provide_credential(&self, context: &Context) -> Result<Option<Credential>, Error> {
        for (name, provider) in &self.0 {
            match provider.provide_credential_dyn(context).await {
                Ok(None) => {}
                Ok(got) => return Ok(got),
                Err(error) => {
                    return Err(Error::new(error.kind(), format!("{name}: {}", chain(&error))));
                }
            }
        }
        Ok(None)
    }
}

impl Source {
    /// Reads the environment and the profile files; asks the instance for its region when nothing else says one.
    pub async fn load(profile: Option<&str>, region: Option<&str>) -> Result<Source, String> {
        let context = Context::new()
            .with_env(OsEnv)
            .with_file_read(Files)
            .with_command_execute(Shell)
            .with_http_send(Http::new().map_err(|e| e.to_string())?);
        Source::of(context, profile, region).await.map_err(|e| chain(&e))
    }

    async fn of(
        context: Context,
        profile: Option<&str>,
        region: Option<&str>,
    ) -> Result<Source, Error> {
        let profile = profile
            .map(str::to_owned)
            .or_else(|| context.env_var("AWS_PROFILE"))
            .unwrap_or_else(|| "default".to_owned());
        let profiles = Profiles::read(&context).await?;
        let region = match region
            .map(str::to_owned)
            .or_else(|| context.env_var("AWS_REGION"))
            .or_else(|| context.env_var("AWS_DEFAULT_REGION"))
            .or_else(|| profiles.get(&profile, "region").map(str::to_owned))
        {
            Some(region) => Some(region),
            None => instance_region(&context).await,
        };

        let mut chain = Chain::default();
        chain.push("environment", EnvCredentialProvider::new());
        profiles.add(&mut chain, &context, &profile, region.as_deref(), 0)?;
        let mut web = AssumeRoleWithWebIdentityCredentialProvider::new();
        if let Some(region) = &region {
            web = web.with_region(region.clone()).with_regional_sts_endpoint();
        }
        if context.env_var("AWS_ROLE_SESSION_NAME").is_none() {
            web = web.with_role_session_name("docket".to_owned());
        }
        chain.push("web identity", web);
        chain.push("container", ECSCredentialProvider::new());
        chain.push("instance metadata", IMDSv2CredentialProvider::new());
        Ok(Source { region, context, profile, chain })
    }

    pub async fn credentials(&self) -> Result<Credential, String> {
        match self.chain.provide_credential(&self.context).await {
            Ok(Some(credentials)) => Ok(credentials),
            Ok(None) => Err(format!(
                "none in the environment, the profile {:?}, a web identity or a container, and \
                 the instance's metadata are disabled",
                self.profile
            )),
            Err(error) => Err(chain(&error)),
        }
    }
}

/// `~/.aws/config` and `~/.aws/credentials`, or the files that the environment names.
struct Profiles {
    config: Ini,
    credentials: Ini,
}

impl Profiles {
    async fn read(context: &Context) -> Result<Profiles, Error> {
        let read = async |variable: &str, usual: &str| {
            let path = context.env_var(variable).unwrap_or_else(|| usual.to_owned());
            let content = match context.expand_home_dir(&path) {
                Some(path) => context.file_read(&path).await.unwrap_or_default(),
                None => Vec::new(),
            };
            Ini::load_from_str(&String::from_utf8_lossy(&content))
                .map_err(|e| Error::config_invalid(format!("{path}: {e}")))
        };
        Ok(Profiles {
            config: read("AWS_CONFIG_FILE", "~/.aws/config").await?,
            credentials: read("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials").await?,
        })
    }

    fn get(&self, profile: &str, name: &str) -> Option<&str> {
        let section = match profile {
            "default" => profile.to_owned(),
            _ => format!("profile {profile}"),
        };
        self.credentials
            .get_from(Some(profile), name)
            .or_else(|| self.config.get_from(Some(section), name))
    }

    /// Adds what a profile says: a role to take with other credentials, or credentials.
    fn add(
        &self,
        chain: &mut Chain,
        context: &Context,
        profile: &str,
        region: Option<&str>,
        depth: usize,
    ) -> Result<(), Error> {
        let get = |name| self.get(profile, name).map(str::to_owned);
        let Some(role) = get("role_arn").filter(|_| depth < 8) else {
            self.add_credentials(chain, profile);
            return Ok(());
        };
        let session = get("role_session_name").unwrap_or_else(|| "docket".to_owned());
        if let Some(token) = get("web_identity_token_file") {
            let mut web =
                AssumeRoleWithWebIdentityCredentialProvider::with_config(role, token.into())
                    .with_role_session_name(session);
            if let Some(region) = region {
                web = web.with_region(region.to_owned()).with_regional_sts_endpoint();
            }
            chain.push("profile, web identity", web);
            return Ok(());
        }
        let mut base = Chain::default();
        match (get("source_profile"), get("credential_source").as_deref()) {
            // A profile may take a role with its own keys.
            (Some(source), _) if source == profile => self.add_credentials(&mut base, profile),
            (Some(source), _) => self.add(&mut base, context, &source, region, depth + 1)?,
            (None, Some("Environment")) => base.push("environment", EnvCredentialProvider::new()),
            (None, Some("EcsContainer")) => base.push("container", ECSCredentialProvider::new()),
            (None, Some("Ec2InstanceMetadata")) => {
                base.push("instance metadata", IMDSv2CredentialProvider::new());
            }
            (None, source) => {
                return Err(Error::config_invalid(format!(
                    "the profile {profile:?} has a role_arn, but {}",
                    source.map_or_else(
                        || "no source_profile, credential_source or web_identity_token_file".into(),
                        |source| format!("docket knows no credential_source {source:?}")
                    )
                )));
            }
        }
        let signer = Signer::new(
            context.clone(),
            base,
            RequestSigner::new("sts", region.unwrap_or("us-east-1")),
        );
        let mut provider =
            AssumeRoleCredentialProvider::new(role, signer).with_role_session_name(session);
        if let Some(region) = region {
            provider = provider.with_region(region.to_owned()).with_regional_sts_endpoint();
        }
        if let Some(id) = get("external_id") {
            provider = provider.with_external_id(id);
        }
        chain.push("profile, role", provider);
        Ok(())
    }

    fn add_credentials(&self, chain: &mut Chain, profile: &str) {
        chain.push("profile", ProfileCredentialProvider::new().with_profile(profile));
        let mut sso = SSOCredentialProvider::new().with_profile(profile);
        let session = self.get(profile, "sso_session");
        if let Some(session) = session {
            let section = format!("sso-session {session}");
            if let (Some(account), Some(role), Some(region)) = (
                self.get(profile, "sso_account_id"),
                self.get(profile, "sso_role_name"),
                self.config.get_from(Some(section), "sso_region"),
            ) {
                // The token's file is called by the session, and by the address in profiles without one.
                sso = sso
                    .with_account_id(account)
                    .with_role_name(role)
                    .with_region(region)
                    .with_start_url(session);
            }
        }
        chain.push("profile, SSO", sso);
        chain.push(
            "profile, credential_process",
            ProcessCredentialProvider::new().with_profile(profile),
        );
    }
}

/// The region that the instance is in; none when there is no instance.
async fn instance_region(context: &Context) -> Option<String> {
    if context.env_var("AWS_EC2_METADATA_DISABLED").is_some_and(|v| v == "true") {
        return None;
    }
    let at = context
        .env_var("AWS_EC2_METADATA_SERVICE_ENDPOINT")
        .unwrap_or_else(|| "http://169.254.169.254".to_owned());
    let ask = async |request: http::request::Builder| {
        let answer = context.http_send_as_string(request.body(Bytes::new()).ok()?).await.ok()?;
        answer.status().is_success().then(|| answer.into_body().trim().to_owned())
    };
    let token = ask(http::Request::put(format!("{at}/latest/api/token"))
        .header("x-aws-ec2-metadata-token-ttl-seconds", "60"))
    .await?;
    let region = ask(http::Request::get(format!("{at}/latest/meta-data/placement/region"))
        .header("x-aws-ec2-metadata-token", token))
    .await?;
    Some(region).filter(|region| !region.is_empty())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::{Arc, Mutex};

    use reqsign_core::{HttpSend, StaticEnv};

    use super::*;

    /// What answers: status and content by method and address.
    type Answers = fn(&str, &str) -> (u16, &'static str);

    #[derive(Debug, Clone)]
    struct Fake {
        answers: Answers,
        asked: Arc<Mutex<Vec<http::Request<Bytes>>>>,
    }

    impl HttpSend for Fake {
        async fn http_send(
            &self,
            request: http::Request<Bytes>,
        ) -> Result<http::Response<Bytes>, Error> {
            let (status, content) =
                (self.answers)(request.method().as_str(), &request.uri().to_string());
            self.asked.lock().unwrap().push(request);
            if status == 0 {
                return Err(Error::unexpected("nobody is there"));
            }
            Ok(http::Response::builder().status(status).body(content.into()).unwrap())
        }
    }

    struct World {
        home: tempfile::TempDir,
        env: HashMap<String, String>,
        http: Fake,
    }

    impl World {
        fn new(config: &str, env: &[(&str, &str)], answers: Answers) -> World {
            let home = tempfile::tempdir().unwrap();
            std::fs::create_dir_all(home.path().join(".aws/sso/cache")).unwrap();
            std::fs::write(home.path().join(".aws/config"), config).unwrap();
            let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            World { home, env, http: Fake { answers, asked: Arc::default() } }
        }

        fn file(&self, name: &str, content: &str) -> String {
            let path = self.home.path().join(name);
            std::fs::write(&path, content).unwrap();
            path.to_str().unwrap().to_owned()
        }

        async fn source(&self, profile: Option<&str>) -> Result<Source, Error> {
            let context = Context::new()
                .with_env(StaticEnv {
                    home_dir: Some(self.home.path().to_owned()),
                    envs: self.env.clone(),
                })
                .with_file_read(Files)
                .with_command_execute(Shell)
                .with_http_send(self.http.clone());
            Source::of(context, profile, None).await
        }

        /// The key's id, or what is wrong.
        async fn key(&self, profile: Option<&str>) -> Result<String, String> {
            match self.source(profile).await {
                Ok(source) => Ok(source.credentials().await?.access_key_id),
                Err(error) => Err(chain(&error)),
            }
        }

        fn asked(&self) -> Vec<String> {
            let asked = self.http.asked.lock().unwrap();
            asked.iter().map(|request| request.uri().to_string()).collect()
        }
    }

    fn nobody(_: &str, _: &str) -> (u16, &'static str) {
        (0, "")
    }

    const NO_INSTANCE: (&str, &str) = ("AWS_EC2_METADATA_DISABLED", "true");

    #[tokio::test]
    async fn the_environment_comes_before_the_profile_and_a_named_profile_before_the_default() {
        let config = "[default]\naws_access_key_id = of-default\naws_secret_access_key = s\nregion = eu-west-1\n\
                      [profile other]\naws_access_key_id = of-other\naws_secret_access_key = s\nregion = eu-north-1\n";
        let mut world = World::new(config, &[NO_INSTANCE], nobody);
        assert_eq!(world.key(None).await.unwrap(), "of-default");
        assert_eq!(world.source(None).await.unwrap().region.as_deref(), Some("eu-west-1"));
        assert_eq!(world.key(Some("other")).await.unwrap(), "of-other");
        assert_eq!(
            world.source(Some("other")).await.unwrap().region.as_deref(),
            Some("eu-north-1")
        );
        world.env.insert("AWS_PROFILE".into(), "other".into());
        assert_eq!(world.key(None).await.unwrap(), "of-other");
        world.env.insert("AWS_REGION".into(), "us-east-1".into());
        world.env.insert("AWS_ACCESS_KEY_ID".into(), "of-environment".into());
        world.env.insert("AWS_SECRET_ACCESS_KEY".into(), "s".into());
        assert_eq!(world.key(None).await.unwrap(), "of-environment");
        assert_eq!(world.source(None).await.unwrap().region.as_deref(), Some("us-east-1"));
        assert!(world.asked().is_empty());
    }

    #[tokio::test]
    async fn an_instance_says_its_role_and_its_region() {
        let answers: Answers = |method, at| match (method, at.rsplit_once("/latest/").unwrap().1) {
            ("PUT", "api/token") => (200, "t"),
            (_, "meta-data/placement/region") => (200, "ap-south-1"),
            (_, "meta-data/iam/security-credentials/") => (200, "the-role"),
            (_, "meta-data/iam/security-credentials/the-role") => (
                200,
                r#"{"Code":"Success","AccessKeyId":"of-instance","SecretAccessKey":"s","Token":"t","Expiration":"2099-01-01T00:00:00Z"}"#,
            ),
            _ => (404, ""),
        };
        let world = World::new("", &[], answers);
        let source = world.source(None).await.unwrap();
        assert_eq!(source.region.as_deref(), Some("ap-south-1"));
        let credentials = source.credentials().await.unwrap();
        assert_eq!(credentials.access_key_id, "of-instance");
        assert_eq!(credentials.session_token.as_deref(), Some("t"));
        assert!(credentials.expires_in.is_some());
    }

    #[tokio::test]
    async fn a_pod_asks_its_agent_with_its_token() {
        let answers: Answers = |_, _| {
            (
                200,
                r#"{"AccessKeyId":"of-pod","SecretAccessKey":"s","Token":"t","Expiration":"2099-01-01T00:00:00Z"}"#,
            )
        };
        let mut world = World::new("", &[NO_INSTANCE], answers);
        let token = world.file("token", "agent-token\n");
        for (name, value) in [
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1/credentials"),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", &token),
        ] {
            world.env.insert(name.into(), value.into());
        }
        assert_eq!(world.key(None).await.unwrap(), "of-pod");
        let asked = world.http.asked.lock().unwrap();
        assert_eq!(asked[0].uri(), "http://169.254.170.23/v1/credentials");
        assert_eq!(asked[0].headers()["authorization"], "agent-token");
    }

    const ROLE: &str = "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
        <AccessKeyId>ASIAOFTHEROLE00001</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken>\
        <Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>";

    #[tokio::test]
    async fn a_service_account_takes_its_role_at_the_regions_sts() {
        let mut world = World::new("", &[NO_INSTANCE], |_, _| (200, ROLE));
        let token = world.file("token", "jwt");
        for (name, value) in [
            ("AWS_REGION", "eu-central-1"),
            ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/docket"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", &token),
        ] {
            world.env.insert(name.into(), value.into());
        }
        assert_eq!(world.key(None).await.unwrap(), "ASIAOFTHEROLE00001");
        let asked = world.http.asked.lock().unwrap();
        assert_eq!(asked[0].uri(), "https://sts.eu-central-1.amazonaws.com/");
        let body = String::from_utf8_lossy(asked[0].body()).into_owned();
        assert!(body.contains("WebIdentityToken=jwt"), "{body}");
        assert!(body.contains("RoleSessionName=docket"), "{body}");
    }

    #[tokio::test]
    async fn a_profile_takes_a_role_with_the_credentials_of_another() {
        let config = "[profile keys]\naws_access_key_id = AKIAOFTHEKEYS00001\naws_secret_access_key = s\n\
                      [profile role]\nregion = eu-central-1\nrole_arn = arn:aws:iam::123456789012:role/docket\nsource_profile = keys\n";
        let role: Answers = |_, _| {
            (
                200,
                "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>ASIAOFTHEROLE00001</AccessKeyId>\
                 <SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration>\
                 </Credentials></AssumeRoleResult></AssumeRoleResponse>",
            )
        };
        let world = World::new(config, &[NO_INSTANCE], role);
        assert_eq!(world.key(Some("role")).await.unwrap(), "ASIAOFTHEROLE00001");
        let asked = world.http.asked.lock().unwrap();
        assert_eq!(asked[0].uri().host(), Some("sts.eu-central-1.amazonaws.com"));
        let signature = asked[0].headers()["authorization"].to_str().unwrap();
        assert!(
            signature.starts_with("AWS4-HMAC-SHA256 Credential=AKIAOFTHEKEYS00001/"),
            "{signature}"
        );
        assert!(signature.contains("/eu-central-1/sts/aws4_request"), "{signature}");
    }

    #[tokio::test]
    async fn a_profiles_process_is_a_shells_command() {
        let config = "[default]\ncredential_process = printf '{\"Version\":1,\"AccessKeyId\":\"%s\",\"SecretAccessKey\":\"s\"}' 'of process'\n";
        let world = World::new(config, &[NO_INSTANCE], nobody);
        assert_eq!(world.key(None).await.unwrap(), "of process");
        let failing = "[default]\ncredential_process = echo locked >&2; exit 3\n";
        let world = World::new(failing, &[NO_INSTANCE], nobody);
        let error = world.key(None).await.unwrap_err();
        assert!(error.starts_with("profile, credential_process:"), "{error}");
        assert!(error.contains("locked"), "{error}");
    }

    #[tokio::test]
    async fn a_session_of_sso_is_found_by_its_name() {
        let config = "[default]\nsso_session = work\nsso_account_id = 123456789012\nsso_role_name = docket\n\
                      [sso-session work]\nsso_region = eu-central-1\nsso_start_url = https://work.example/start\n";
        let sso: Answers = |_, _| {
            (
                200,
                r#"{"roleCredentials":{"accessKeyId":"of-sso","secretAccessKey":"s","sessionToken":"t","expiration":4070908800000}}"#,
            )
        };
        let world = World::new(config, &[NO_INSTANCE], sso);
        let error = world.key(None).await.unwrap_err();
        assert!(error.contains("aws sso login"), "{error}");
        // SHA-1 of the session's name, as the AWS command line has it.
        world.file(
            ".aws/sso/cache/e274eeff768c6396088ec6eb091f4bf4d47ab1e0.json",
            r#"{"accessToken":"a","expiresAt":"2099-01-01T00:00:00Z"}"#,
        );
        assert_eq!(world.key(None).await.unwrap(), "of-sso");
        assert!(
            world.asked()[0].starts_with(
                "https://portal.sso.eu-central-1.amazonaws.com/federation/credentials"
            )
        );
    }

    #[tokio::test]
    async fn errors_name_the_source_that_failed_or_say_where_it_looked() {
        let world = World::new("", &[NO_INSTANCE], nobody);
        let error = world.key(None).await.unwrap_err();
        assert!(error.starts_with("none in the environment, the profile \"default\""), "{error}");
        let world = World::new("", &[], nobody);
        let error = world.key(None).await.unwrap_err();
        assert!(error.starts_with("instance metadata: "), "{error}");
        assert!(error.ends_with("nobody is there"), "{error}");
        let config = "[default]\nrole_arn = arn:aws:iam::123456789012:role/docket\n";
        let error = World::new(config, &[], nobody).key(None).await.unwrap_err();
        assert_eq!(
            error,
            "the profile \"default\" has a role_arn, but no source_profile, credential_source or web_identity_token_file"
        );
        let missing = [
            NO_INSTANCE,
            ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/docket"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "/nowhere"),
        ];
        let error = World::new("", &missing, nobody).key(None).await.unwrap_err();
        assert!(error.starts_with("web identity: "), "{error}");
        assert!(error.contains("No such file"), "{error}");
    }

    #[test]
    fn debug_output_shows_no_secret() {
        let credentials = Credential {
            access_key_id: "AKIAIOSFODNN7EXAMPLE".into(),
            secret_access_key: "canary-of-a-secret-key".into(),
            session_token: Some("canary-of-a-token".into()),
            expires_in: None,
        };
        assert!(!format!("{credentials:?}").contains("canary-of"));
    }
}
