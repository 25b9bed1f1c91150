//! `/v1/agent/connect/ca/leaf`: certificates with their keys, for applications that speak Connect
//! themselves.
//!
//! Whoever reaches this endpoint can be any service, so it is served where no tokens are needed anyway
//! (dev mode) and refused elsewhere. One certificate for each name is kept in memory and replaced well
//! before it expires, and when another root signs; an expired one is never served.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::json;

use super::catalog::service_name;
use super::error::ApiError;
use super::query::Params;
use super::{App, Index, Shared, blocking, reply};
use crate::ca::ServiceMaterial;
use crate::model::ServiceName;
use crate::model::time::{epoch_ms, rfc3339};

/// Certificates that are kept; beyond that the one that expires first goes.
const MAX_LEAVES: usize = 1024;
/// A certificate is replaced after this part of its life, as sidecars do.
const RENEW_AT: f64 = 0.5;

/// All certificates that were handed out and are still good.
#[derive(Default)]
pub(super) struct Leaves {
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    by_name: HashMap<ServiceName, Leaf>,
    last: Index,
}

struct Leaf {
    material: ServiceMaterial,
    /// Id of the root that signed when it was made.
    root: String,
    index: Index,
}

impl Leaf {
    /// When it has to be replaced.
    fn due(&self) -> SystemTime {
        let (from, until) = (self.material.leaf.not_before, self.material.leaf.not_after);
        from + until.duration_since(from).unwrap_or_default().mul_f64(RENEW_AT)
    }
}

impl Leaves {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows the certificate of a service, a new one when there is none that is good; says whether there
    /// was.
    fn with<T>(
        &self,
        app: &Shared,
        name: &ServiceName,
        show: impl FnOnce(&Leaf) -> T,
    ) -> Result<(T, bool), ApiError> {
        if app.state.catalog.bans().borrow().has_identity(&app.state.ca.service_id(name)?) {
            return Err(ApiError::new(StatusCode::FORBIDDEN, format!("service {name} is banned")));
        }
        let now = SystemTime::now();
        let root = app.state.ca.active_root();
        let mut held = self.lock();
        let good = held.by_name.get(name).is_some_and(|leaf| leaf.root == root && now < leaf.due());
        if !good {
            let material = app.state.ca.service_material(name)?;
            // Seconds keep the index from going back when the server is restarted.
            held.last = (held.last + 1).max(epoch_ms(now) / 1000);
            let index = held.last;
            held.make_room();
            held.by_name.insert(name.clone(), Leaf { material, root, index });
        }
        let leaf = held.by_name.get(name);
        leaf.map(|leaf| (show(leaf), good))
            .ok_or_else(|| ApiError::internal("the certificate is gone again; try again"))
    }
}

impl Held {
    fn make_room(&mut self) {
        if self.by_name.len() < MAX_LEAVES {
            return;
        }
        let first = self.by_name.iter().min_by_key(|(_, leaf)| leaf.due());
        if let Some(name) = first.map(|(name, _)| name.clone()) {
            self.by_name.remove(&name);
        }
    }
}

pub(super) async fn no_name() -> ApiError {
    ApiError::internal("URI must be either service or agent")
}

/// The certificate and key of a service, registered or not; with an index, only a newer one.
pub(super) async fn leaf(
    State(app): App,
    Path(name): Path<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let options = params.read_options(&app.state.catalog.settings().datacenter)?;
    if !app.state.hands_out_leaves {
        let text = "keys of services are handed out in dev mode only; use a sidecar, or `weft run`";
        return Err(ApiError::new(StatusCode::FORBIDDEN, text));
    }
    let name = service_name(&name)?;
    let ((index, due), was_held) = app.leaves.with(&app, &name, |leaf| (leaf.index, leaf.due()))?;
    if options.must_wait(index) {
        let mut changes = app.state.ca.version();
        let root = app.state.ca.active_root();
        let renewed = async {
            let left = due.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO);
            tokio::select! {
                () = tokio::time::sleep(left) => {}
                // An error means that the authority is gone: nothing will change any more.
                _ = changes.wait_for(|_| app.state.ca.active_root() != root) => {}
            }
        };
        blocking::hold(&app, &options, pin!(renewed)).await;
    }
    let ((index, shape), _) = app.leaves.with(&app, &name, |leaf| (leaf.index, shape(&name, leaf)))?;
    let mut response = reply::json(params.layout, &shape);
    reply::add_index_alone(response.headers_mut(), index);
    if was_held {
        reply::add_cache_hit(response.headers_mut());
    } else {
        reply::add_cache_miss(response.headers_mut());
    }
    Ok(response)
}

fn shape(name: &ServiceName, leaf: &Leaf) -> serde_json::Value {
    let material = &leaf.material;
    json!({
        "SerialNumber": material.leaf.serial,
        "CertPEM": material.chain_pem,
        "PrivateKeyPEM": material.key_pem.as_str(),
        "Service": name.as_str(),
        "ServiceURI": material.leaf.id.to_string(),
        "ValidAfter": rfc3339(epoch_ms(material.leaf.not_before)),
        "ValidBefore": rfc3339(epoch_ms(material.leaf.not_after)),
        "CreateIndex": leaf.index,
        "ModifyIndex": leaf.index,
    })
}
