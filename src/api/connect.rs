//! `/v1/connect/ca` and `/v1/agent/connect/ca`: the public half of the certificate authority.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};

use super::App;
use super::blocking;
use super::error::ApiError;
use super::json::roots::RootsJson;
use super::query::Params;
use super::reply;

/// The roots of the trust domain. Their index is the version of the bundle.
pub(super) async fn roots(State(app): App, params: Params) -> Result<Response, ApiError> {
    let options = params.read_options(&app.state.catalog.settings().datacenter)?;
    let wants_pem = match params.non_empty("pem").map(super::query::parse_bool) {
        None => false,
        Some(Some(wanted)) => wanted,
        Some(None) => {
            return Err(ApiError::bad_request("The 'pem' query parameter must be a boolean value"));
        }
    };
    let mut bundle = app.state.ca.bundle();
    let version = bundle.borrow().version;
    if options.must_wait(version) {
        let passed = async {
            // An error means that the authority is gone: nothing will change any more.
            drop(bundle.wait_for(|bundle| bundle.version > options.index).await);
        };
        blocking::hold(&app, &options, passed).await;
    }
    let version = app.state.ca.bundle().borrow().version;
    let roots = app.state.ca.roots();
    if wants_pem {
        let text: String = roots.iter().map(|root| root.pem.as_str()).collect();
        return Ok(([(header::CONTENT_TYPE, "application/pem-certificate-chain")], text).into_response());
    }
    let shape = RootsJson::new(app.state.ca.trust_domain().as_str(), &roots, version);
    let mut response = reply::json(params.layout, &shape);
    // Consul says here that it knows no leader; its clients have learnt not to mind.
    reply::add_index(&mut response, version, false);
    Ok(response)
}
