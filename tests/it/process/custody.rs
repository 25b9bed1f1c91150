//! The keys of the authority at rest, as people keep them: a key file, a data directory, and what is
//! refused about both.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::mesh::ran;
use super::support::{Process, free_port, local, until};

const STORE: &str = "weft.redb";

fn private(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

/// A server over `data`, from its start to its end in good order; or the error that kept it from starting.
async fn serve(data: &Path, key_file: Option<&Path>) -> Result<String, String> {
    let (http, grpc) = (local(free_port()), local(free_port()).to_string());
    let (data, at) = (data.to_string_lossy(), http.to_string());
    let mut args = vec!["server", "--node", "central", "--data-dir", &data, "--http-addr", &at];
    args.extend(["--grpc-addr", &grpc, "--dns-addr", "off", "--log-format", "json"]);
    let key_file = key_file.map(|path| path.to_string_lossy().into_owned());
    args.extend(key_file.iter().flat_map(|path| ["--ca-key-file", path]));
    let mut server = Process::start("server", &args, &[]);
    let mut shown = None;
    until("a server, or its error", async || {
        if !server.is_running() {
            return true;
        }
        if super::mesh::is_ready(http).await {
            shown = Some(ran(&["ca", "show"], &[("WEFT_HTTP_ADDR", &at)]).await);
        }
        shown.is_some()
    })
    .await;
    match shown {
        Some(shown) => {
            assert_eq!(server.stop().await, 0);
            Ok(shown.out)
        }
        None => {
            assert_ne!(server.ended().await, 0);
            Err(server.stderr())
        }
    }
}

#[tokio::test]
async fn keys_are_encrypted_with_a_key_and_files_that_are_open_to_others_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (data, key, other) = (dir.path().join("data"), dir.path().join("key"), dir.path().join("other"));
    private(&key, &"5a".repeat(32));
    private(&other, &"a5".repeat(32));
    let plain = serve(&data, None).await.unwrap();
    assert!(plain.contains("not encrypted"), "{plain}");
    let sealed = serve(&data, Some(&key)).await.unwrap();
    assert!(sealed.contains("encrypted in the store") && !sealed.contains("not encrypted"), "{sealed}");
    let root = |text: &str| text.lines().find(|line| line.contains("pri-")).unwrap().to_owned();
    assert_eq!(root(&plain), root(&sealed), "the same root");

    let link = dir.path().join("link");
    std::os::unix::fs::symlink(&key, &link).unwrap();
    let open = dir.path().join("open");
    fs::copy(&key, &open).unwrap();
    fs::set_permissions(&open, Permissions::from_mode(0o640)).unwrap();
    for (key_file, why) in [
        (None, "--ca-key-file"),
        (Some(&other), "was encrypted with key"),
        (Some(&link), "symbolic link"),
        (Some(&open), "chmod 600"),
    ] {
        let error = serve(&data, key_file.map(|path| path.as_path())).await.unwrap_err();
        assert!(error.contains(why), "{why}: {error}");
        assert!(!error.contains("5a5a5a") && !error.contains("a5a5a5"), "{error}");
    }

    let store = data.join(STORE);
    fs::set_permissions(&store, Permissions::from_mode(0o644)).unwrap();
    let error = serve(&data, Some(&key)).await.unwrap_err();
    assert!(error.contains("chmod 600"), "{error}");
    fs::set_permissions(&store, Permissions::from_mode(0o600)).unwrap();
    let moved = dir.path().join("moved.redb");
    fs::rename(&store, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, &store).unwrap();
    let error = serve(&data, Some(&key)).await.unwrap_err();
    assert!(error.contains("symbolic link"), "{error}");
    fs::remove_file(&store).unwrap();
    fs::rename(&moved, &store).unwrap();
    serve(&data, Some(&key)).await.unwrap();
}
