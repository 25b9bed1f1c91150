//! `weft kv` against a server: bytes stay bytes, and nothing is half done.

use std::process::{Command, Stdio};

use tokio::io::AsyncWriteExt;

use super::{Consul, weft};
use crate::http::Api;

#[tokio::test]
async fn values_of_any_bytes_come_back() {
    let api = Api::start().await;
    let consul = Consul::of(&api);
    let bytes: Vec<u8> = (0..=255).collect();
    std::fs::write(consul.dir.path().join("data"), &bytes).unwrap();
    assert_eq!(consul.line("kv put a/b @data").await.code, 0);
    let mut command = consul.command();
    command.env("CONSUL_HTTP_ADDR", &consul.address).args(["kv", "get", "/a/b"]);
    let got = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert_eq!(got.stdout.strip_suffix(b"\n"), Some(&bytes[..]));
    let base64 = consul.line("kv get -base64 a/b").await.out;
    let again = consul.run(&["kv", "put", "-base64", "c", base64.trim()]).await;
    assert_eq!(again.out, "Success! Data written to: c\n", "{}", again.err);
    assert_eq!(consul.line("kv get -base64 c").await.out, base64);
    api.stop().await;
}

#[tokio::test]
async fn data_come_from_stdin() {
    let api = Api::start().await;
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_weft"));
    command.args(["kv", "put", "k", "-"]).env("WEFT_HTTP_ADDR", api.address.to_string());
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"from stdin").await.unwrap();
    drop(stdin);
    assert!(child.wait_with_output().await.unwrap().status.success());
    assert_eq!(api.get("/v1/kv/k?raw").await.body, "from stdin");
    api.stop().await;
}

#[tokio::test]
async fn flags_indexes_and_sessions_by_table() {
    let api = Api::start().await;
    let consul = Consul::of(&api);
    let session = api.put("/v1/session/create", "{}").await.json()["ID"].as_str().unwrap().to_owned();
    let with_session = |line: &str| line.replace("SESSION", &session);
    for (line, code, out) in [
        ("kv put -flags=42 k v", 0, "Success! Data written to: k\n"),
        ("kv put -acquire -session=SESSION k w", 0, "Success! Lock acquired on: k\n"),
        ("kv put -release -session=SESSION k x", 0, "Success! Lock released on: k\n"),
        ("kv put -release -session=SESSION k y", 1, ""),
        ("kv put empty", 0, "Success! Data written to: empty\n"),
        ("kv get empty", 0, "\n"),
        ("kv put d/e/f 1", 0, "Success! Data written to: d/e/f\n"),
        ("kv get -keys", 0, "d/\nempty\nk\n"),
        ("kv get -keys -separator= d", 0, "d/e/f\n"),
        ("kv get -keys none", 0, ""),
        ("kv get -recurse none", 0, ""),
        ("kv export none", 0, "[]\n"),
        ("kv delete -recurse d", 0, "Success! Deleted keys with prefix: d\n"),
        ("kv delete none", 0, "Success! Deleted key: none\n"),
    ] {
        let ran = consul.line(&with_session(line)).await;
        assert_eq!((ran.code, ran.out.as_str()), (code, out), "{line}: {}", ran.err);
    }
    let detailed = consul.line("kv get -detailed k").await.out;
    let index = detailed.lines().find_map(|line| line.strip_prefix("ModifyIndex")).unwrap().trim();
    assert!(detailed.contains("\nLockIndex        1\n") && detailed.ends_with("Value            x\n"));
    let cas = consul.run(&["kv", "put", "-cas", "-modify-index", index, "k", "z"]).await;
    assert_eq!(cas.code, 0, "{}", cas.err);
    let late = consul.run(&["kv", "delete", "-cas", "-modify-index", index, "k"]).await;
    assert_eq!((late.code, late.err.as_str()), (1, "Error! Did not delete key k: CAS failed\n"));
    api.stop().await;
}

#[tokio::test]
async fn an_export_is_what_an_import_reads() {
    let api = Api::start().await;
    let consul = Consul::of(&api);
    for line in ["kv put -flags=7 app/a 1", "kv put app/b 2", "kv put other 3"] {
        assert_eq!(consul.line(line).await.code, 0);
    }
    let exported = consul.line("kv export app/").await.out;
    consul.file("export.json", &exported);
    consul.line("kv delete -recurse app/").await;
    let imported = consul.line("kv import @export.json").await;
    assert_eq!(imported.out, "Imported: app/a\nImported: app/b\n", "{}", imported.err);
    assert_eq!(consul.line("kv export app/").await.out, exported);
    consul.file("bad.json", &exported.replace("Mg==", "?"));
    consul.line("kv delete -recurse app/").await;
    let refused = consul.line("kv import @bad.json").await;
    assert_eq!((refused.code, refused.out.as_str()), (1, ""));
    assert!(refused.err.starts_with("Error base 64 decoding value for key app/b: "), "{}", refused.err);
    assert_eq!(consul.line("kv get -keys app/").await.out, "", "a part was imported");
    api.stop().await;
}

#[tokio::test]
async fn wefts_exit_codes_tell_the_cases_apart() {
    let api = Api::start().await;
    let address = api.address.to_string();
    let env = [("WEFT_HTTP_ADDR", address.as_str())];
    for (args, code) in [
        (vec!["kv", "get", "none"], 5),
        (vec!["kv", "put", "--cas", "--modify-index", "9", "k", "v"], 1),
        (vec!["kv", "put", "--cas", "--modify-index", "0", "k", "v"], 0),
        (vec!["kv", "put", "--cas", "--modify-index", "0", "k", "v"], 1),
        (vec!["kv", "put", "--acquire", "k"], 2),
        (vec!["kv", "put", "k", "@/nonexistent"], 1),
        (vec!["kv", "get"], 2),
    ] {
        let ran = weft(&env, &args).await;
        assert_eq!(ran.code, code, "{args:?}: {}", ran.err);
    }
    // A reader that goes away is no fault.
    let piped = format!("{} kv get k | true", env!("CARGO_BIN_EXE_weft"));
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", &piped]);
    assert_eq!(super::ran(shell, &env, &[]).await.err, "");
    api.stop().await;
}
