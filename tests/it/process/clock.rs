//! A clock that is far off. A small library put before the C library's own shifts the wall clock of
//! one process; it needs a C compiler.

use std::path::Path;
use std::process::Command;

use super::mesh::{Mesh, Sidecar, Spec, ran};
use super::support::{free_port, local};

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

/// Compiles the library; `None` without a compiler.
fn library(dir: &Path) -> Option<String> {
    let (source, library) = (dir.join("shift.c"), dir.join("shift.so"));
    std::fs::write(&source, SHIFT).unwrap();
    let mut compiler = Command::new("cc");
    let made = compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl").status();
    made.is_ok_and(|status| status.success()).then(|| library.to_string_lossy().into_owned())
}

#[tokio::test]
async fn a_clock_that_is_far_off_is_named() {
    let mesh = Mesh::start().await;
    let Some(library) = library(mesh.dir()) else {
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
    let Some(library) = library(mesh.dir()) else {
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
