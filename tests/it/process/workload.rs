//! An application's own identity, by the program's commands: `weft proxy --workload-socket` and
//! `weft cert write`.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::Signal;
use tokio::process::Command;

use super::mesh::{Mesh, Sidecar, Spec, ran};
use super::support::{Process, until, within};
use crate::programs;

/// Nobody's on any system.
const NOBODY: u32 = 65_534;

struct Place {
    mesh: Mesh,
    socket: &'static str,
    certs: String,
}

impl Place {
    async fn start(leaf_ttl: &'static str) -> Self {
        let mesh = Mesh::dev(leaf_ttl).await;
        let path = |name: &str| mesh.dir().join(name).to_string_lossy().into_owned();
        Self { socket: path("workload.sock").leak(), certs: path("certs"), mesh }
    }

    fn spec(&self) -> Spec {
        Spec::new("web", "web-1", 1).flags(&["--workload-socket", self.socket])
    }

    fn file(&self, name: &str) -> PathBuf {
        Path::new(&self.certs).join(name)
    }

    fn certificate(&self) -> String {
        fs::read_to_string(self.file("svid.pem")).unwrap_or_default()
    }

    /// `weft cert write`, for ever.
    fn writer(&self, more: &[&str]) -> Process {
        let mut args = vec!["cert", "write", "--dir", &self.certs, "--log-format", "json"];
        args.extend(more);
        Process::start("cert write", &args, &[("SPIFFE_ENDPOINT_SOCKET", self.socket)])
    }
}

/// Whether certificate, key and bundle of a set belong together, by OpenSSL.
async fn fits(set: &Path) -> bool {
    let script = "openssl verify -CAfile bundle.pem -untrusted svid.pem svid.pem >/dev/null \
        && test \"$(openssl x509 -in svid.pem -noout -pubkey)\" = \"$(openssl pkey -in svid_key.pem -pubout)\"";
    let mut shell = Command::new("/bin/sh");
    shell.current_dir(set).args(["-c", script]).stdin(Stdio::null()).kill_on_drop(true);
    within("openssl", shell.status()).await.unwrap().success()
}

#[tokio::test]
async fn files_follow_the_rotation_as_a_set() {
    if !programs::present(&["openssl"]) {
        return;
    }
    let place = Place::start("10s").await;
    let _web = place.mesh.sidecar(&place.spec()).await;
    let told = place.mesh.dir().join("told");
    let tell = format!("readlink \"$WEFT_CERT_DIR/..data\" >> {}", told.display());
    let mut writer = place.writer(&["--exec", &tell]);
    until("the first files", async || place.file("svid.pem").exists()).await;
    let (first, set) = (place.certificate(), fs::canonicalize(place.file("..data")).unwrap());
    assert_eq!(fs::metadata(place.file("svid_key.pem")).unwrap().mode() & 0o777, 0o600);
    assert!(fits(&set).await);
    until("a rotation", async || place.certificate() != first).await;
    let next = fs::canonicalize(place.file("..data")).unwrap();
    assert_ne!(set, next);
    assert!(fits(&next).await && fits(&set).await, "who reads the old set still can");
    until("the command", async || fs::read_to_string(&told).is_ok_and(|t| t.lines().count() >= 2)).await;
    assert_eq!(writer.stop().await, 0);
}

#[tokio::test]
async fn the_writer_outlives_its_sidecar_and_a_dead_socket_is_replaced() {
    let place = Place::start("1h").await;
    let web = place.mesh.sidecar(&place.spec()).await;
    let mut writer = place.writer(&[]);
    until("the first files", async || place.file("svid.pem").exists()).await;
    let first = place.certificate();
    web.kill().await;
    assert!(Path::new(place.socket).exists(), "nobody was left to remove it");
    writer.said("trouble with the Workload API; trying again").await;
    let mut web = place.mesh.sidecar(&place.spec()).await;
    until("the files of the next sidecar", async || place.certificate() != first).await;
    // A second sidecar cannot take the place of one that lives.
    let mut second = place.mesh.launch(&place.spec()).await;
    assert_ne!(second.ended().await, 0);
    assert!(second.stderr().contains("--workload-socket"), "{}", second.stderr());
    assert_eq!(web.stop().await, 0);
    assert!(!Path::new(place.socket).exists());
    assert_eq!(writer.stop().await, 0);
}

#[tokio::test]
async fn an_upgrade_in_place_hands_the_socket_on() {
    let place = Place::start("1h").await;
    let directory = place.mesh.dir().join("upgrade");
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, Permissions::from_mode(0o700)).unwrap();
    let upgrade = directory.join("web").to_string_lossy().into_owned().leak();
    let spec = place.spec().flags(&["--upgrade-socket", upgrade]);
    let mut old = place.mesh.sidecar(&spec).await;
    let mut writer = place.writer(&[]);
    until("the first files", async || place.file("svid.pem").exists()).await;
    let first = place.certificate();
    let mut new = Sidecar::ready(place.mesh.launch_with(&spec, None)).await;
    assert_eq!(old.process.ended().await, 0);
    until("the successor's files", async || place.certificate() != first).await;
    assert!(Path::new(place.socket).exists(), "it is the successor's");
    assert_eq!(writer.stop().await, 0);
    assert_eq!(new.stop().await, 0);
    assert!(!Path::new(place.socket).exists());
}

#[tokio::test]
async fn weft_run_tells_its_application_where_to_ask() {
    let place = Place::start("1h").await;
    let grpc = place.mesh.grpc.to_string();
    let told = place.mesh.dir().join("told");
    let script = format!("echo \"$SPIFFE_ENDPOINT_SOCKET\" > {}", told.display());
    let port = super::support::free_port().to_string();
    let mut args = vec!["run", "--name", "web", "--port", &port, "--server", &grpc];
    args.extend(["--workload-socket", place.socket, "--admin-addr", "127.0.0.1:0"]);
    args.extend(["--drain-delay", "1ms", "--", "/bin/sh", "-c", &script]);
    let done = ran(&args, &[]).await;
    assert_eq!(done.code, 0, "{}", done.err);
    assert_eq!(fs::read_to_string(told).unwrap().trim(), format!("unix://{}", place.socket));
}

#[tokio::test]
async fn what_cannot_work_says_why() {
    let place = Place::start("1h").await;
    let write = async |args: &[&str]| {
        ran(&[&["cert", "write", "--once", "--dir", &place.certs], args].concat(), &[]).await
    };
    let unnamed = write(&[]).await;
    assert_eq!(
        (unnamed.code, unnamed.err.contains("SPIFFE_ENDPOINT_SOCKET")),
        (2, true),
        "{}",
        unnamed.err
    );
    let wrong = write(&["--socket", "tcp://127.0.0.1:1"]).await;
    assert_eq!((wrong.code, wrong.err.contains("unix:///PATH")), (2, true), "{}", wrong.err);
    let file = place.mesh.file("precious", "data");
    let spec = Spec::new("web", "web-1", 1);
    let spec = spec.flags(&["--workload-socket", file.to_string_lossy().into_owned().leak()]);
    let mut refused = place.mesh.launch(&spec).await;
    assert_ne!(refused.ended().await, 0);
    assert!(refused.stderr().contains("no socket"), "{}", refused.stderr());
    assert_eq!(fs::read_to_string(&file).unwrap(), "data");
}

/// Needs root, to become somebody else.
#[tokio::test]
async fn another_user_is_refused_until_the_list_has_it() {
    if !rustix::process::geteuid().is_root() {
        programs::left_out("only root can call as another user");
        return;
    }
    if !programs::present(&["setpriv"]) {
        return;
    }
    let place = Place::start("1h").await;
    // Where that user can come, with a program that it can run.
    fs::set_permissions(place.mesh.dir(), Permissions::from_mode(0o755)).unwrap();
    let theirs = place.mesh.dir().join("nobody");
    fs::create_dir(&theirs).unwrap();
    std::os::unix::fs::chown(&theirs, Some(NOBODY), Some(NOBODY)).unwrap();
    let weft = place.mesh.dir().join("weft");
    fs::copy(env!("CARGO_BIN_EXE_weft"), &weft).unwrap();
    let as_nobody = async || {
        let mut command = Command::new("setpriv");
        let id = NOBODY.to_string();
        command.args(["--reuid", &id, "--regid", &id, "--clear-groups"]).arg(&weft);
        command
            .args(["cert", "write", "--once", "--socket", place.socket, "--dir"])
            .arg(theirs.join("certs"));
        let output = command.stdin(Stdio::null()).kill_on_drop(true).output();
        let output = within("the other user", output).await.unwrap();
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // On the list is somebody, but not that user.
    let spec = place.spec().flags(&["--workload-uid", "0", "--workload-uid", "54321"]);
    let mut web = place.mesh.sidecar(&spec).await;
    let (code, err) = as_nobody().await;
    assert_eq!(code, 4, "{err}");
    assert!(err.contains("user 65534 has no identity here"), "{err}");
    assert!(!theirs.join("certs/svid.pem").exists());
    let refused = web.process.said("a user who is not on the list asks for an identity; refused").await;
    assert_eq!(refused["uid"], NOBODY);
    assert_eq!(web.stop().await, 0);

    let web = place.mesh.sidecar(&place.spec().flags(&["--workload-uid", "65534"])).await;
    let (code, err) = as_nobody().await;
    assert_eq!(code, 0, "{err}");
    let key = fs::metadata(theirs.join("certs/svid_key.pem")).unwrap();
    assert_eq!((key.uid(), key.mode() & 0o777), (NOBODY, 0o600));
    web.process.signal(Signal::TERM);
}
