//! The side that dials for its application: one local port per upstream.

use std::net::SocketAddr;
use std::rc::Rc;

use tokio::net::{TcpListener, TcpStream};

use super::connection::{Connection, OUTBOUND};
use super::context::Context;
use super::dial::{Dialler, Opened};
use super::route::Route;
use crate::model::Reason;
use crate::net::accept::Acceptor;
use crate::net::drain::{Phase, Watcher};
use crate::net::socket;
use crate::tunnel::End;

/// Accepts connections to upstream number `index` until the drain begins.
pub(super) async fn serve(ctx: Rc<Context>, index: usize, listener: TcpListener, mut drain: Watcher) {
    let metrics = ctx.metrics.clone();
    let mut acceptor = Acceptor::new(listener).noticing(move || metrics.limit_reached("accept"));
    loop {
        let (app, client) = tokio::select! {
            accepted = acceptor.accept() => accepted,
            () = drain.reached(Phase::Draining) => return,
        };
        let Some(admission) = ctx.admit() else {
            socket::reset_on_close(&app);
            continue;
        };
        let (ctx, drain) = (Rc::clone(&ctx), drain.clone());
        tokio::task::spawn_local(async move {
            if let Some(upstream) = ctx.plan.routes.get(index) {
                connection(&ctx, upstream, app, client, drain).await;
            }
            drop(admission);
        });
    }
}

async fn connection(
    ctx: &Rc<Context>,
    upstream: &Route,
    app: TcpStream,
    client: SocketAddr,
    mut drain: Watcher,
) {
    let (source, destination) = (&ctx.plan.service, &upstream.destination);
    let mut record = Connection::open(OUTBOUND, source, destination, Some(client), &ctx.metrics);
    record.report_to(&ctx.reports);
    socket::face_application(&app);
    let app = Rc::new(app);
    let opened = {
        // Far larger than what carries the connection then, which may live for days.
        let opening = Box::pin(open(ctx, upstream, &app, &mut record));
        tokio::select! {
            biased;
            opened = opening => opened,
            () = drain.reached(Phase::Closing) => Err(stopped()),
        }
    };
    let end = match opened {
        Ok(opened) => carry(opened, &app, &mut record, &mut drain).await,
        Err(end) => end,
    };
    record.close(end);
}

async fn open(
    ctx: &Rc<Context>,
    upstream: &Route,
    app: &Rc<TcpStream>,
    record: &mut Connection,
) -> Result<Opened, End> {
    let Some(identity) = ctx.ready().await else {
        let detail = "no certificate or configuration came from the control plane in time";
        return Err(End::new(Reason::ConfigStale, detail));
    };
    record.access().source_id = Some(identity.id().clone());
    drop(identity);
    Dialler::new(ctx, upstream, app).open(record).await
}

async fn carry(
    mut opened: Opened,
    app: &Rc<TcpStream>,
    record: &mut Connection,
    drain: &mut Watcher,
) -> End {
    record.connected();
    let end = tokio::select! {
        biased;
        end = opened.stream.pump(app) => end,
        () = drain.reached(Phase::Closing) => stopped(),
    };
    let (sent, received) = opened.stream.bytes();
    record.moved(sent, received);
    if end.reason != Reason::Ok {
        opened.stream.reset(end.reason, &end.detail);
    }
    end
}

fn stopped() -> End {
    End::new(Reason::Drained, "the sidecar stopped")
}
