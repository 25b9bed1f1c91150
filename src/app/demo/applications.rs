//! The demo's applications. They know nothing of the mesh: each listens on a plain port and reaches
//! the next one at a plain local address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::{LOOPBACK, http};
use crate::app::AppError;

/// Longest line the database reads.
const MAX_LINE_BYTES: u64 = 1024;

/// One of the applications.
pub(super) enum Application {
    /// Answers each line with a row.
    Database,
    /// HTTP: asks the database.
    Api { id: String, version: String },
    /// HTTP: asks the API.
    Web,
}

/// A plain local port for an application.
pub(super) async fn bind() -> Result<(TcpListener, SocketAddr), AppError> {
    let address = SocketAddr::new(LOOPBACK, 0);
    let failed = |source| AppError::Bind { address, purpose: "a demo application".to_owned(), source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

impl Application {
    /// Serves until aborted; `upstream` is where the next application is.
    pub(super) async fn serve(self, listener: TcpListener, upstream: Option<SocketAddr>) {
        let router = match (self, upstream) {
            (Self::Database, _) => return serve_rows(listener).await,
            (Self::Api { id, version }, Some(db)) => api(Arc::new(Api { id, version, db })),
            (Self::Web, Some(api)) => web(api),
            (Self::Api { .. } | Self::Web, None) => return,
        };
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "a demo application stopped");
        }
    }
}

async fn serve_rows(listener: TcpListener) {
    let rows = Arc::new(AtomicU64::new(0));
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            let rows = Arc::clone(&rows);
            tokio::spawn(async move {
                // The client going away ends the conversation.
                let _gone = answer_lines(stream, &rows).await;
            });
        }
    }
}

async fn answer_lines(stream: TcpStream, rows: &AtomicU64) -> std::io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut line = String::new();
    while (&mut reader).take(MAX_LINE_BYTES).read_line(&mut line).await? > 0 {
        let row = rows.fetch_add(1, Ordering::Relaxed) + 1;
        writer.write_all(format!("row {row}\n").as_bytes()).await?;
        line.clear();
    }
    Ok(())
}

struct Api {
    id: String,
    version: String,
    db: SocketAddr,
}

fn api(api: Arc<Api>) -> Router {
    Router::new().route("/hello", get(hello)).route("/health", get(async || "ok")).with_state(api)
}

async fn hello(State(api): State<Arc<Api>>) -> (StatusCode, String) {
    match ask_database(api.db).await {
        Ok(row) => {
            let body = serde_json::json!({ "from": api.id, "version": api.version, "db": row });
            (StatusCode::OK, format!("{body}\n"))
        }
        Err(error) => (StatusCode::BAD_GATEWAY, format!("{}: no database: {error}\n", api.id)),
    }
}

async fn ask_database(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"next\n").await?;
    let mut row = String::new();
    BufReader::new(stream).take(MAX_LINE_BYTES).read_line(&mut row).await?;
    Ok(row.trim_end().to_owned())
}

fn web(api: SocketAddr) -> Router {
    Router::new().route("/", get(front)).route("/health", get(async || "ok")).with_state(api)
}

async fn front(State(api): State<SocketAddr>) -> (StatusCode, String) {
    match http::get(api, "/hello").await {
        Ok((200, body)) => (StatusCode::OK, format!("web says: {body}")),
        Ok((status, body)) => (StatusCode::BAD_GATEWAY, format!("api answered {status}: {body}")),
        Err(error) => (StatusCode::BAD_GATEWAY, format!("api does not answer: {error}\n")),
    }
}
