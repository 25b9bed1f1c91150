//! What the document about access shows is what happens.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::super::support::{free_port, local};
use crate::programs;

/// As long as several servers and a few keys take on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test]
async fn every_block_runs() {
    if !programs::present(&["openssl", "curl"]) {
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/access.md");
    let document = std::fs::read_to_string(path).unwrap();
    let blocks = document.split("```sh\n").skip(1);
    let mut script: String = blocks.map(|rest| rest.split("```").next().unwrap()).collect();
    // Ports of the test in the place of the usual ones.
    let [http, grpc, https] = [(); 3].map(|()| local(free_port()).to_string());
    for (shown, ours) in [
        ("weft server --data-dir", format!("weft server --http-addr {http} --data-dir")),
        (
            "weft server --memory --https-addr",
            format!("weft server --http-addr {http} --memory --https-addr"),
        ),
        ("--dns-addr off", format!("--dns-addr off --grpc-addr {grpc}")),
        ("127.0.0.1:8500", http.clone()),
        ("127.0.0.1:8501", https),
    ] {
        assert!(script.contains(shown), "{shown}");
        script = script.replace(shown, &ours);
    }
    let dir = tempfile::tempdir().unwrap();
    let programs = Path::new(env!("CARGO_BIN_EXE_weft")).parent().unwrap().to_str().unwrap();
    let mut shell = tokio::process::Command::from(Command::new("/bin/sh"));
    // A group of its own, so that a server that is left over ends with it.
    shell.current_dir(dir.path()).args(["-eux", "-c", &script]).env_clear().process_group(0);
    shell.env("PATH", format!("{programs}:/usr/bin:/bin")).env("WEFT_HTTP_ADDR", &http);
    let files = ["out", "err"].map(|name| dir.path().join(name));
    let [out, err] = files.each_ref().map(|path| Stdio::from(std::fs::File::create(path).unwrap()));
    let mut child = shell.stdin(Stdio::null()).stdout(out).stderr(err).spawn().unwrap();
    let group = rustix::process::Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    let status = tokio::time::timeout(LIMIT, child.wait()).await;
    let _all_gone = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    let [out, err] = files.map(|path| std::fs::read_to_string(path).unwrap());
    assert!(status.is_ok_and(|status| status.unwrap().success()), "{out}\n{err}");
    for said in [
        "the token lacks kv:write\n",
        "ACL not found\n",
        "line 3: it was changed",
        ", with the first line that was changed\n",
        "a certificate is required\n",
    ] {
        assert!(out.contains(said), "{said:?} is not in\n{out}\n{err}");
    }
}
