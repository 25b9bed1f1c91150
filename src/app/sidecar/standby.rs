//! A sidecar on its way up: its ports are bound and its agent runs, and it does not accept yet. One that
//! starts afresh opens at once, so that connections wait for the first configuration; a successor opens
//! when it is ready, because until then somebody else serves.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::watch::{Waits, watch_agent};
use super::{
    Door, Doors, Endpoint, Listeners, Settings, Sidecar, Tasks, checks, feed, local_app, ready,
    registrations,
};
use crate::agent::{self, Agent};
use crate::app::AppError;
use crate::health::{Runner, Workload};
use crate::model::ServiceName;
use crate::net::capacity::Capacity;
use crate::proxy::{self, LocalApp, Proxy};
use crate::telemetry::{ProxyMetrics, Readiness, admin};
use crate::workload;

/// A sidecar that does not accept yet: its agent runs and its ports are bound.
pub struct Standby {
    listeners: Listeners,
    /// Addresses whose sockets a service manager keeps.
    kept: Vec<SocketAddr>,
    service: ServiceName,
    app: LocalApp,
    capacity: Capacity,
    checks: Workload,
    agent: Agent,
    metrics: ProxyMetrics,
    readiness: Readiness,
    settings: Settings,
    /// Another process serves until this one opens.
    succeeds: bool,
    tasks: Tasks,
}

impl Standby {
    /// Binds every port that was not given, and starts the agent: with the identity of a predecessor, or
    /// to get one. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When a port cannot be bound, a socket was given that the configuration does not want, or the
    /// predecessor's identity is of no use.
    pub fn start(
        mut settings: Settings,
        mut given: Doors,
        estate: Option<agent::Estate>,
    ) -> Result<Self, AppError> {
        let sidecar = settings.definition.sidecar.get_or_insert_default().clone();
        let kept = given.kept();
        let listeners = match Listeners::bind(&settings, &sidecar.upstreams, &mut given) {
            // What is in the way was given to us under another name.
            Err(AppError::Bind { address, purpose, source }) => {
                let door = given.iter().find(|door| door.address == address);
                return Err(door.map_or(AppError::Bind { address, purpose, source }, unwanted));
            }
            listeners => listeners?,
        };
        if estate.is_none()
            && let Some(door) = given.iter().next()
        {
            return Err(unwanted(door));
        }
        let registrations = registrations(&settings, listeners.bound.inbound.port())?;
        let app = local_app(&registrations)?;
        let capacity = super::capacity(&registrations);
        let service = settings.definition.name.clone();
        let known = estate.as_ref().map(|estate| estate.results.clone()).unwrap_or_default();
        let checks = checks(&registrations, &known);
        let agent_settings = agent::Settings {
            servers: settings.servers.clone(),
            token: settings.token.clone(),
            service: service.clone(),
            registrations,
            upstreams: sidecar.upstreams.iter().map(|u| u.destination.clone()).collect(),
            serves_workload: settings.workload.is_some(),
        };
        let succeeds = estate.is_some();
        let agent = match estate {
            Some(estate) => Agent::succeed(agent_settings, estate)?,
            None => Agent::start(agent_settings),
        };
        let (metrics, readiness) = (ProxyMetrics::new(), Readiness::new());
        let waits = Waits::new(&readiness);
        let tasks = Tasks(vec![tokio::spawn(watch_agent(agent.handle.clone(), metrics.clone(), waits))]);
        Ok(Self {
            listeners,
            kept,
            service,
            app,
            capacity,
            checks,
            agent,
            metrics,
            readiness,
            settings,
            succeeds,
            tasks,
        })
    }

    /// As [`Sidecar::ready`].
    ///
    /// # Errors
    /// As there.
    pub async fn ready(&mut self, limit: Duration) -> Result<(), AppError> {
        ready(&self.readiness, &mut self.agent, &self.settings.servers, limit).await
    }

    /// Starts everything else: connections are accepted from now on.
    ///
    /// # Errors
    /// When a thread or a descriptor cannot be had; then nothing runs.
    pub fn open(self) -> Result<Sidecar, AppError> {
        let (agent, metrics, readiness) = (self.agent, self.metrics, self.readiness);
        let workload = self.settings.workload.as_ref();
        let workload = workload.map(|settings| workload::Server::bind(settings, self.succeeds));
        let workload = workload.transpose()?;
        let doors = Arc::new(self.listeners.doors(&self.kept)?);
        let Listeners { inbound, upstreams, admin: admin_listener, bound } = self.listeners;
        let plane = proxy::Settings {
            service: self.service.clone(),
            app: self.app,
            inbound: Some(inbound),
            upstreams,
            workers: self.settings.workers,
            capacity: self.capacity,
        };
        let proxy = Proxy::start(plane, &agent.handle, &metrics)
            .map_err(|source| AppError::Start { what: "the data plane".to_owned(), source })?;
        let checks = Arc::new(Runner::start(self.checks, agent.handle.checks.clone()));
        let mut admin = None;
        if let Some(listener) = admin_listener {
            let router = admin::router(readiness.clone(), metrics.registry())
                .merge(feed::router(Arc::clone(&checks)));
            let listener = tokio::net::TcpListener::from_std(listener)
                .map_err(|source| AppError::Start { what: "the admin endpoint".to_owned(), source })?;
            admin = Some(Endpoint::start(|stopped| admin::serve(vec![listener], router, stopped)));
        }
        let workload = workload.map(|server| {
            let agent = agent.handle.clone();
            Endpoint::start(|stopped| server.serve(agent, stopped))
        });
        let (service, settings, tasks) = (self.service, self.settings, self.tasks);
        Ok(Sidecar {
            bound,
            service,
            agent,
            proxy,
            checks,
            readiness,
            settings,
            doors,
            tasks,
            admin,
            workload,
        })
    }
}

/// A socket that nothing wants is a mistake in the unit that gives it: whoever connects there would wait
/// for ever. (What a predecessor has and this process does not want is let go.)
fn unwanted(door: &Door) -> AppError {
    AppError::Usage(format!(
        "the socket `{}` that was given to this process listens on {}, which is not where the service file \
         and the flags want it",
        door.purpose, door.address
    ))
}
