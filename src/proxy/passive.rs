//! Passive health checking at work: what became of an attempt goes into the endpoint's record, and an
//! ejection and its end are said in the log and the metrics. `dial` calls it.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::context::Context;
use super::endpoint::Stats;
use super::outlier::Health;
use crate::model::{EndpointId, ServiceName};

/// An endpoint of the upstream number `index` failed.
pub(super) fn failed(ctx: &Rc<Context>, index: usize, id: &EndpointId, stats: &Stats) {
    let Some(route) = ctx.plan.routes.get(index) else { return };
    let service = &route.destination;
    let now = Instant::now();
    let ejection =
        route.outliers.failed(&stats.health, healthy(ctx, service), now, &mut ctx.rng.borrow_mut());
    let Some(ejection) = ejection else { return };
    ctx.metrics.ejected(service.as_str());
    ctx.show_ejected(route);
    let for_ms = ejection.as_millis();
    tracing::warn!(%service, endpoint = %id, for_ms, "endpoint ejected after repeated failures");
    let (ctx, id, health) = (Rc::clone(ctx), id.clone(), Arc::downgrade(&stats.health));
    tokio::task::spawn_local(async move {
        tokio::time::sleep(ejection).await;
        let returns = |health: Arc<Health>| health.returns(Instant::now());
        if health.upgrade().is_some_and(returns) {
            returned(&ctx, index, &id);
        }
    });
}

/// An endpoint answered as it should; `took` is the time from dial to verdict.
pub(super) fn succeeded(ctx: &Context, index: usize, id: &EndpointId, stats: &Stats, took: Duration) {
    stats.measured(Instant::now(), took);
    if stats.health.succeeded() {
        returned(ctx, index, id);
    }
}

fn returned(ctx: &Context, index: usize, id: &EndpointId) {
    let Some(route) = ctx.plan.routes.get(index) else { return };
    ctx.show_ejected(route);
    tracing::info!(service = %route.destination, endpoint = %id, "endpoint returned after its ejection");
}

/// How many endpoints of a service the catalog calls healthy.
fn healthy(ctx: &Context, service: &ServiceName) -> usize {
    let snapshot = ctx.snapshot();
    let view = snapshot.services.get(service);
    view.map_or(0, |view| view.endpoints.values().filter(|state| state.weight() > 0).count())
}
