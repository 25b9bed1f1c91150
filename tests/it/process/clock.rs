//! A clock that is far off. A small library put before the C library's own shifts the wall clock of
//! one process; it needs a C compiler.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tokio::time::Instant;

use super::mesh::{Mesh, Sidecar, Spec, ran};
use super::support::{free_port, local, slow};
use super::traffic::{App, Load};

const SHIFT: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>
int clock_gettime(clockid_t id, struct timespec *at) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(id, at);
    const char *shift = getenv("TEST_CLOCK_SHIFT_S");
    if (!failed && id == CLOCK_REALTIME && shift) at->tv_sec += atol(shift);
    return failed;
}
"#;

/// The same, with a shift that is read anew from a file each time: a clock that jumps.
const JUMP: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *at) {
    int (*real)(clockid_t, struct timespec *) = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(id, at);
    if (failed || id != CLOCK_REALTIME) return failed;
    char text[16] = {0};
    int file = open(getenv("TEST_CLOCK_FILE"), O_RDONLY | O_CLOEXEC);
    if (file < 0) return failed;
    if (read(file, text, sizeof text - 1) > 0) at->tv_sec += atol(text);
    close(file);
    return failed;
}
"#;

/// Compiles a library; `None` without a compiler.
fn library(dir: &Path, text: &str) -> Option<String> {
    let (source, library) = (dir.join("shift.c"), dir.join("shift.so"));
    std::fs::write(&source, text).unwrap();
    let mut compiler = Command::new("cc");
    let made = compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl").status();
    made.is_ok_and(|status| status.success()).then(|| library.to_string_lossy().into_owned())
}

#[tokio::test]
async fn a_clock_that_is_far_off_is_named() {
    let mesh = Mesh::start().await;
    let Some(library) = library(mesh.dir(), SHIFT) else {
        println!("left out without a C compiler: a clock that is far off");
        return;
    };
    let config = mesh.file("web.hcl", &Spec::new("web", "web-1", 1).hcl());
    let (config, server) = (config.to_string_lossy(), mesh.grpc.to_string());
    // An hour and a day behind, and twenty years ahead: past the life of the root.
    for shift in ["-3600", "-86400", "631152000"] {
        let token = mesh.token("web").await;
        let (token, admin) = (token.to_string_lossy(), local(free_port()).to_string());
        let mut args = vec!["proxy", "--config", &config, "--server", &server, "--token-file", &token];
        args.extend(["--admin-addr", &admin, "--start-timeout", "1s", "--log-format", "json"]);
        let ran = ran(&args, &[("LD_PRELOAD", &library), ("TEST_CLOCK_SHIFT_S", shift)]).await;
        assert_eq!(ran.code, 3, "{shift}: {}", ran.err);
        let errors = ran.err.lines().filter(|line| line.starts_with("error[")).count();
        assert_eq!(errors, 1, "{}", ran.err);
        assert!(ran.err.contains("clock_skew") && ran.err.contains(&server), "{shift}: {}", ran.err);
        println!("clock shifted by {shift} s\n{}", ran.err);
    }
}

/// Five minutes either way do not matter, nor does an hour ahead: certificates are valid from before they
/// were made, and for days.
#[tokio::test]
async fn a_clock_that_is_a_little_off_does_not_matter() {
    let mesh = Mesh::start().await;
    let Some(library) = library(mesh.dir(), SHIFT) else {
        println!("left out without a C compiler: a clock that is a little off");
        return;
    };
    for (id, shift) in [("behind", "-290"), ("ahead", "300"), ("hour", "3600")] {
        let token = mesh.token("web").await;
        let env = [("LD_PRELOAD", library.as_str()), ("TEST_CLOCK_SHIFT_S", shift)];
        let process = mesh.launch_in(&Spec::new("web", id, 1), Some(&token), &env);
        let mut sidecar = Sidecar::ready(process).await;
        assert_eq!(sidecar.process.stop().await, 0, "{shift}");
    }
}

/// An hour forward and back again is no reason for more than one renewal, nor for a failed connection.
#[tokio::test]
async fn a_clock_that_jumps_costs_one_renewal_at_most() {
    // A sidecar looks at the wall clock every 30 s at least.
    let look = Duration::from_secs(if slow("45 s after each jump instead of 3") { 45 } else { 3 });
    let (mesh, app) = (Mesh::dev("72h").await, App::start("db-1").await);
    let Some(library) = library(mesh.dir(), JUMP) else {
        println!("left out without a C compiler: a clock that jumps");
        return;
    };
    let _db = mesh.sidecar(&Spec::new("db", "db-1", app.port())).await;
    let shift = mesh.file("shift", "0");
    let spec = Spec::new("web", "web-1", 1).upstream("db");
    let path = shift.to_string_lossy();
    let env = [("LD_PRELOAD", library.as_str()), ("TEST_CLOCK_FILE", &path)];
    let web = Sidecar::ready(mesh.launch_in(&spec, None, &env)).await;
    let load = Load::start(spec.door(), 50);
    for jump in ["3600", "0"] {
        mesh.file("shift", jump);
        let began = Instant::now();
        while began.elapsed() < look {
            load.last(Duration::from_millis(500)).await;
        }
    }
    let seen = load.finish().await;
    let certificates = web.metric(r#"weft_cert_renewals_total{result="ok"}"#).await.unwrap();
    println!("jumps: {certificates} certificates, {} ok, {} failed", seen.total(), seen.failures.len());
    assert!(certificates <= 2.0, "the first, and {} renewals", certificates - 1.0);
    assert!(seen.failures.is_empty(), "{:?}", seen.failures);
}
