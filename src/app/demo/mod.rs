//! The demo mesh: `web` → `api` (two instances) → `db`, with real sidecars, certificates and sockets,
//! all inside one process.

mod applications;
pub(super) mod card;
mod http;
pub(super) mod story;
pub(super) mod traffic;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::Instant;

use self::applications::Application;
use super::AppError;
use super::server;
use super::sidecar::{self, Sidecar};
use crate::model::service::{DEFAULT_CHECK_TIMEOUT, Upstream};
use crate::model::{
    CheckDefinition, CheckKind, CheckStatus, Definition, InstanceId, NodeName, ServiceName,
};

/// Local ports of the demo's upstreams, before the offset.
const WEB_TO_API: u16 = 9191;
const API_TO_DB: u16 = 9192;
/// Everything must be up by then.
const START_LIMIT: Duration = Duration::from_secs(10);
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// An application with its sidecar.
pub(super) struct Member {
    pub(super) sidecar: Sidecar,
    application: AbortHandle,
}

/// The running demo.
pub(super) struct Demo {
    pub(super) web: Member,
    pub(super) apis: Vec<Member>,
    pub(super) db: Member,
}

impl Demo {
    /// Starts applications and sidecars, and waits until a request has passed through all of them.
    pub(super) async fn start(server: server::Bound, port_offset: u16) -> Result<Self, AppError> {
        let port = |base: u16| base.saturating_add(port_offset);
        let db = Member::start(server, "db", "db", Application::Database, &[]).await?;
        let mut apis = Vec::new();
        for number in 1..=2u16 {
            let id = format!("api-{number}");
            let upstream = [("db", port(API_TO_DB + number - 1))];
            let application = Application::Api { id: id.clone(), version: format!("v{number}") };
            apis.push(Member::start(server, "api", &id, application, &upstream).await?);
        }
        let upstream = [("api", port(WEB_TO_API))];
        let web = Member::start(server, "web", "web", Application::Web, &upstream).await?;
        let mut demo = Self { web, apis, db };
        demo.ready().await?;
        Ok(demo)
    }

    /// Where `web` reaches `api`.
    pub(super) fn api_address(&self) -> SocketAddr {
        self.web.upstream()
    }

    async fn ready(&mut self) -> Result<(), AppError> {
        let members = self.apis.iter_mut().chain([&mut self.web, &mut self.db]);
        let ready = members.map(|member| member.sidecar.ready(START_LIMIT));
        futures_util::future::try_join_all(ready).await?;
        let deadline = Instant::now() + START_LIMIT;
        loop {
            match http::get(self.api_address(), "/hello").await {
                Ok((200, _)) => return Ok(()),
                _ if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(10)).await,
                Ok((status, body)) => {
                    return Err(AppError::Story(format!("the demo answers {status}: {body}")));
                }
                Err(error) => return Err(AppError::Story(format!("the demo does not answer: {error}"))),
            }
        }
    }

    /// Drains all sidecars, callers first.
    pub(super) async fn stop(self) {
        for member in [vec![self.web], self.apis, vec![self.db]].into_iter().flatten() {
            member.sidecar.finish().await;
            member.application.abort();
        }
    }
}

impl Member {
    async fn start(
        server: server::Bound,
        service: &str,
        id: &str,
        application: Application,
        upstreams: &[(&str, u16)],
    ) -> Result<Self, AppError> {
        let (listener, address) = applications::bind().await?;
        let settings = settings(server, service, id, &application, address, upstreams)?;
        let sidecar = Sidecar::start(settings)?;
        let upstream = sidecar.bound().upstreams.first().map(|upstream| upstream.address);
        let application = tokio::spawn(application.serve(listener, upstream)).abort_handle();
        Ok(Self { sidecar, application })
    }

    fn upstream(&self) -> SocketAddr {
        // Only called for members that declare one.
        let none = SocketAddr::new(LOOPBACK, 0);
        self.sidecar.bound().upstreams.first().map_or(none, |upstream| upstream.address)
    }

    /// What a crash does: everything stops at once, nobody is told.
    pub(super) async fn kill(self) {
        self.application.abort();
        self.sidecar.kill().await;
    }
}

fn settings(
    server: server::Bound,
    service: &str,
    id: &str,
    application: &Application,
    address: SocketAddr,
    upstreams: &[(&str, u16)],
) -> Result<sidecar::Settings, AppError> {
    let mut definition = Definition::new(ServiceName::new(service)?, address.port())?;
    definition.id = InstanceId::new(id)?;
    definition.checks = vec![check(&definition.id, application, address)];
    let sidecar = definition.sidecar.get_or_insert_default();
    for (destination, port) in upstreams {
        sidecar.upstreams.push(Upstream {
            destination: ServiceName::new(destination)?,
            local_bind_address: String::new(),
            local_bind_port: *port,
            datacenter: String::new(),
            config: std::collections::BTreeMap::new(),
        });
    }
    Ok(sidecar::Settings {
        workload: None,
        definition,
        servers: vec![server.grpc.to_string()],
        token: None,
        node: NodeName::new("demo")?,
        bind: LOOPBACK,
        advertise: None,
        inbound_port: None,
        admin: Some(SocketAddr::new(LOOPBACK, 19000)),
        workers: 1,
        next_free_ports: true,
        drain_delay: Duration::ZERO,
        drain_grace: Duration::from_secs(1),
    })
}

fn check(id: &InstanceId, application: &Application, address: SocketAddr) -> CheckDefinition {
    let kind = match application {
        Application::Database => {
            CheckKind::Tcp { address: address.to_string(), use_tls: false, tls_skip_verify: false }
        }
        Application::Api { .. } | Application::Web => CheckKind::Http {
            url: format!("http://{address}/health"),
            method: "GET".to_owned(),
            headers: std::collections::BTreeMap::new(),
            body: String::new(),
            tls_skip_verify: false,
        },
    };
    CheckDefinition {
        id: format!("service:{id}"),
        name: format!("Service '{id}' check"),
        notes: String::new(),
        kind,
        interval: Duration::from_secs(1),
        timeout: DEFAULT_CHECK_TIMEOUT,
        initial: CheckStatus::Critical,
        success_before_passing: 0,
        failures_before_warning: None,
        failures_before_critical: 0,
        deregister_critical_after: None,
    }
}
