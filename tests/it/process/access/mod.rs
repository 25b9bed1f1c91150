//! The doors of the HTTP API as people open them: UNIX socket, HTTPS, tokens, the audit log; and that no
//! secret is found anywhere it does not belong.

mod canary;
mod docs;
mod etcd;
mod listeners;
mod pki;
mod scan;
mod signing;

use std::path::Path;

use rustix::process::Signal;

use super::mesh::{Ran, ran};
use super::support::{Process, free_port, local, until};

/// A server with whatever doors a test gives it, and a directory for its files.
struct Server {
    process: Process,
}

impl Server {
    /// Starts `weft server` over `directory/data`, and waits until it says that it is ready.
    async fn start(directory: &Path, flags: &[&str]) -> Self {
        let data = directory.join("data").to_string_lossy().into_owned();
        let grpc = local(free_port()).to_string();
        let mut args = vec!["server", "--data-dir", &data, "--dns-addr", "off", "--log-format", "json"];
        if !flags.contains(&"--grpc-addr") {
            args.extend(["--grpc-addr", &grpc]);
        }
        args.extend(flags);
        let mut process = Process::start("server", &args, &[]);
        process.said("server is ready").await;
        Self { process }
    }

    async fn reload(&mut self) {
        let before = self.reloads();
        self.process.signal(Signal::HUP);
        until("the reload", async || self.reloads() > before).await;
    }

    fn reloads(&self) -> usize {
        let about = |line: &&serde_json::Value| {
            let message = line["message"].as_str().unwrap_or_default();
            message.contains("reload") || message.contains("old configuration goes on")
        };
        self.process.log().iter().filter(about).count()
    }
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// A command at an address, with the operator's token.
async fn at(address: &str, token_file: &Path, args: &[&str]) -> Ran {
    let token = text(token_file);
    ran(args, &[("WEFT_HTTP_ADDR", address), ("WEFT_HTTP_TOKEN_FILE", &token)]).await
}
