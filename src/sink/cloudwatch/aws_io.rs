//! How reqsign reads files, runs programs and speaks HTTP here.

use std::time::Duration;

use axum::http;
use bytes::Bytes;
use reqsign_core::{CommandExecute, CommandOutput, Error, FileRead, HttpSend};

#[derive(Debug)]
pub struct Files;

impl FileRead for Files {
    async fn file_read(&self, path: &str) -> Result<Vec<u8>, Error> {
        Ok(tokio::fs::read(path).await?)
    }
}

/// A `credential_process` is a shell's command, whose words may be quoted.
#[derive(Debug)]
pub struct Shell;

impl CommandExecute for Shell {
    async fn command_execute(&self, program: &str, args: &[&str]) -> Result<CommandOutput, Error> {
        let command = [&[program], args].concat().join(" ");
        let run = tokio::process::Command::new("sh").arg("-c").arg(command).output();
        let output = tokio::time::timeout(Duration::from_secs(60), run)
            .await
            .map_err(|_| Error::unexpected("it did not end within a minute"))??;
        Ok(CommandOutput {
            status: output.status.code().unwrap_or(-1),
            stdout: output.stdout,
            stderr: output.stderr,
        })
    }
}

#[derive(Debug)]
pub struct Http {
    /// STS and SSO.
    services: reqwest::Client,
    /// Metadata of instances and containers: plain HTTP beside the process, which no proxy reaches.
    metadata: reqwest::Client,
}

impl Http {
    pub fn new() -> Result<Http, reqwest::Error> {
        let client = |connect, whole| {
            reqwest::Client::builder()
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(Duration::from_secs(connect))
                .timeout(Duration::from_secs(whole))
        };
        Ok(Http { services: client(5, 30).build()?, metadata: client(1, 5).no_proxy().build()? })
    }
}

impl HttpSend for Http {
    async fn http_send(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<http::Response<Bytes>, Error> {
        let https = request.uri().scheme() == Some(&http::uri::Scheme::HTTPS);
        let client = if https { &self.services } else { &self.metadata };
        // The error would name the address, which may hold a token.
        let broken = |error: reqwest::Error| {
            Error::unexpected("no answer").with_source(error.without_url()).set_retryable(true)
        };
        let mut answer =
            client.execute(request.try_into().map_err(broken)?).await.map_err(broken)?;
        let mut whole = http::Response::new(Bytes::new());
        *whole.status_mut() = answer.status();
        *whole.headers_mut() = std::mem::take(answer.headers_mut());
        *whole.body_mut() = answer.bytes().await.map_err(broken)?;
        Ok(whole)
    }
}
