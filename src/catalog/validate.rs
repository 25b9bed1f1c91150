//! What a registration must be before it is planned. Pure.

use std::collections::BTreeSet;

use super::CatalogError;
use crate::model::check::MAX_OUTPUT_BYTES;
use crate::model::{Check, CheckKind, CheckReport, Kind, Registration};

/// Most instances in one call: a whole service file, not a whole mesh.
const MAX_REGISTRATIONS: usize = 256;
/// Most checks on one instance.
const MAX_CHECKS: usize = 64;
/// Most results in one call.
const MAX_REPORTS: usize = 4096;
/// Longest id of a check; it is part of a key in the store.
const MAX_CHECK_ID_BYTES: usize = 256;

/// Whether these registrations can be stored together.
pub(super) fn registrations(all: &[Registration]) -> Result<(), CatalogError> {
    if all.len() > MAX_REGISTRATIONS {
        return invalid(format!("{} instances in one call; at most {MAX_REGISTRATIONS}", all.len()));
    }
    let (mut instances, mut checks) = (BTreeSet::new(), BTreeSet::new());
    for registration in all {
        let instance = &registration.instance;
        one(registration)?;
        if !instances.insert((&instance.node, &instance.id)) {
            return invalid(format!("instance {} is registered twice in one call", instance.id));
        }
        for check in &registration.checks {
            if !checks.insert((&instance.node, &check.id)) {
                return invalid(format!("check id {:?} is used twice; give each check an id", check.id));
            }
        }
    }
    Ok(())
}

fn one(Registration { instance, checks }: &Registration) -> Result<(), CatalogError> {
    let id = &instance.id;
    match (instance.kind, &instance.proxy) {
        (Kind::ConnectProxy, None) => {
            return invalid(format!(
                "sidecar {id} says nothing of its proxy: name the service it stands for"
            ));
        }
        (Kind::ConnectProxy, Some(_)) if instance.port == 0 => {
            return invalid(format!("sidecar {id} has no port: say where it listens"));
        }
        (Kind::Typical, Some(_)) => {
            return invalid(format!("instance {id} has a proxy section but is no sidecar"));
        }
        _ => {}
    }
    if checks.len() > MAX_CHECKS {
        return invalid(format!("instance {id} has {} checks; at most {MAX_CHECKS}", checks.len()));
    }
    for check in checks {
        let about = check.instance.as_ref().map(|(instance, _)| instance);
        if about != Some(id) || check.node != instance.node {
            return invalid(format!(
                "check {:?} comes with instance {id} but is not about it",
                check.id
            ));
        }
        self::check(check)?;
    }
    Ok(())
}

/// Whether a check can be stored.
pub(super) fn check(check: &Check) -> Result<(), CatalogError> {
    let id = &check.id;
    if id.is_empty() || id.len() > MAX_CHECK_ID_BYTES || id.chars().any(char::is_control) {
        return invalid(format!(
            "check id {id:?} is not usable: 1 to {MAX_CHECK_ID_BYTES} bytes without control characters"
        ));
    }
    if let Some(CheckKind::Alias { node: Some(node), .. }) = check.definition.as_ref().map(|d| &d.kind)
        && *node != check.node
    {
        return invalid(format!(
            "check {id:?} on node {} cannot be an alias for node {node}: an alias follows its own node",
            check.node
        ));
    }
    // Output is cut where it comes in; what is longer here is a mistake of the caller.
    if check.output.len() > 2 * MAX_OUTPUT_BYTES {
        return invalid(format!("the output of check {id:?} is {} bytes long", check.output.len()));
    }
    Ok(())
}

/// Whether so many results are taken at once.
pub(super) fn reports(all: &[CheckReport]) -> Result<(), CatalogError> {
    if all.len() > MAX_REPORTS {
        return invalid(format!("{} check results in one call; at most {MAX_REPORTS}", all.len()));
    }
    Ok(())
}

fn invalid(text: String) -> Result<(), CatalogError> {
    Err(CatalogError::Invalid(text))
}
