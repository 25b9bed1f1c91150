//! One run of one check: the only place that turns a definition into a status and an output text.
//!
//! Output texts are Consul's, because people and tools match on them.

use std::io;
use std::time::Duration;

use hyper::Uri;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tower::service_fn;

use super::dial::{DialError, Dialer, TlsOptions};
use super::http::HttpProbe;
use super::{command, h2ping, udp};
use crate::model::check::cut_output;
use crate::model::{CheckDefinition, CheckKind, CheckStatus};

/// Consul's default, for definitions without a timeout.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// A health answer is a few bytes.
const MAX_GRPC_ANSWER_BYTES: usize = 4096;

/// Runs probes. One per runner, because it keeps TLS settings.
pub(super) struct Prober {
    dialer: Dialer,
}

impl Prober {
    pub(super) fn new() -> Self {
        Self { dialer: Dialer::new() }
    }

    /// Runs `check` once, within its timeout. TTL and alias checks have nothing to run.
    pub(super) async fn run(&self, check: &CheckDefinition) -> Option<(CheckStatus, String)> {
        let budget = if check.timeout.is_zero() { DEFAULT_TIMEOUT } else { check.timeout };
        match &check.kind {
            CheckKind::Http { url, method, headers, body, tls_skip_verify } => {
                let probe = HttpProbe { url, method, headers, body, tls_skip_verify: *tls_skip_verify };
                let late = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)";
                let result = timeout(budget, probe.run(&self.dialer, budget)).await;
                Some(result.unwrap_or_else(|_| (CheckStatus::Critical, probe.failure(late))))
            }
            CheckKind::Tcp { address, use_tls, tls_skip_verify } => {
                let tls = use_tls.then_some(TlsOptions { skip_verify: *tls_skip_verify, alpn: b"" });
                Some(self.tcp(address, tls, budget).await)
            }
            CheckKind::Udp { address } => Some(udp::probe(address, budget).await),
            CheckKind::H2ping { address, use_tls, tls_skip_verify } => {
                let tls = use_tls.then_some(TlsOptions { skip_verify: *tls_skip_verify, alpn: b"h2" });
                Some(h2ping::probe(&self.dialer, address, tls, budget).await)
            }
            CheckKind::OsService { unit } => Some(command::os_service(unit, budget).await),
            CheckKind::Script { args } => Some(command::script(args, budget).await),
            CheckKind::Grpc { address, service, use_tls, tls_skip_verify } => {
                let tls = use_tls.then_some(TlsOptions { skip_verify: *tls_skip_verify, alpn: b"h2" });
                let late = Err(Status::deadline_exceeded("context deadline exceeded"));
                let answer = timeout(budget, self.grpc(address, service, tls, budget)).await;
                Some(judge_grpc(address, service, answer.unwrap_or(late)))
            }
            CheckKind::Ttl { .. } | CheckKind::Alias { .. } => None,
        }
    }

    async fn tcp(
        &self,
        address: &str,
        tls: Option<TlsOptions>,
        budget: Duration,
    ) -> (CheckStatus, String) {
        match timeout(budget, self.dialer.stream(address, tls, budget)).await {
            Ok(Ok(_)) => (CheckStatus::Passing, format!("TCP connect {address}: Success")),
            Ok(Err(error)) => (CheckStatus::Critical, error.to_string()),
            Err(_) => (CheckStatus::Critical, format!("dial tcp {address}: i/o timeout")),
        }
    }

    async fn grpc(
        &self,
        address: &str,
        service: &str,
        tls: Option<TlsOptions>,
        budget: Duration,
    ) -> Result<ServingStatus, Status> {
        let stream =
            self.dialer.stream(address, tls, budget).await.map_err(|error| unreachable(&error))?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        let origin: Uri = format!("{scheme}://{address}")
            .parse()
            .map_err(|_| Status::invalid_argument(format!("{address:?} is not an address")))?;
        // TLS is done already, so that the channel must not see `https` anywhere but in the origin.
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| Status::invalid_argument(error.to_string()))?
            .origin(origin);
        let mut connection = Some(TokioIo::new(stream));
        let connector = service_fn(move |_: Uri| {
            let connection = connection.take().ok_or_else(|| io::Error::other("the connection ended"));
            async move { connection }
        });
        let channel = endpoint
            .connect_with_connector(connector)
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let mut client = HealthClient::new(channel).max_decoding_message_size(MAX_GRPC_ANSWER_BYTES);
        let answer = client.check(HealthCheckRequest { service: service.to_owned() }).await?;
        Ok(answer.into_inner().status())
    }
}

fn unreachable(error: &DialError) -> Status {
    Status::unavailable(format!("connection error: desc = \"transport: Error while dialing {error}\""))
}

fn judge_grpc(
    address: &str,
    service: &str,
    answer: Result<ServingStatus, Status>,
) -> (CheckStatus, String) {
    match answer {
        Ok(ServingStatus::Serving) => {
            let slash = if service.is_empty() { "" } else { "/" };
            (CheckStatus::Passing, format!("gRPC check {address}{slash}{service}: success"))
        }
        Ok(_) => (CheckStatus::Critical, "gRPC application didn't report service healthy".to_owned()),
        Err(status) => {
            let text =
                format!("rpc error: code = {} desc = {}", code_name(status.code()), status.message());
            (CheckStatus::Critical, cut_output(&text))
        }
    }
}

/// Go's spelling of a status code.
fn code_name(code: Code) -> String {
    match code {
        Code::Cancelled => "Canceled".to_owned(),
        Code::Ok => "OK".to_owned(),
        other => format!("{other:?}"),
    }
}

#[cfg(test)]
mod tests;
