//! What the document about the command line shows is what happens.

use std::path::Path;
use std::process::Command;

use super::{Ran, ran};
use crate::http::Api;

/// The shell blocks of a document, in one script.
fn script(document: &str) -> String {
    let blocks = document.split("```sh\n").skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap()).collect()
}

#[tokio::test]
async fn every_block_of_the_authority_runs() {
    if !crate::programs::present(&["openssl"]) {
        return;
    }
    let api = Api::start().await;
    let ran = run("docs/ca.md", 12, &api).await;
    assert_eq!(ran.code, 0, "{}\n{}", ran.out, ran.err);
    let signs = |line: &&str| line.contains("signs, and every connected sidecar has its certificate");
    assert_eq!(ran.out.lines().filter(signs).count(), 3, "{}", ran.out);
    let roots = api.get("/v1/weft/ca").await.json()["roots"].clone();
    assert_eq!(roots[0]["name"], "Corporate Root");
    assert!(roots.as_array().unwrap().iter().any(|root| root["name"] == "Own Root"), "{roots}");
    api.stop().await;
}

/// Runs the blocks of a document, which has more than so many lines of them.
async fn run(document: &str, least: usize, api: &Api) -> Ran {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let script = script(&std::fs::read_to_string(path).unwrap());
    assert!(script.lines().count() > least, "only a part of the document was found:\n{script}");
    let dir = tempfile::tempdir().unwrap();
    let programs = Path::new(env!("CARGO_BIN_EXE_weft")).parent().unwrap().to_str().unwrap();
    let search = format!("{programs}:/usr/bin:/bin");
    let mut shell = Command::new("/bin/sh");
    shell.current_dir(dir.path()).args(["-eux", "-c", &script]);
    ran(shell, &[("PATH", &search), ("WEFT_HTTP_ADDR", &api.address.to_string())], &[]).await
}

#[tokio::test]
async fn every_block_runs() {
    let api = Api::start().await;
    let ran = run("docs/cli.md", 50, &api).await;
    assert_eq!(ran.code, 0, "{}\n{}", ran.out, ran.err);
    for said in
        ["I lead\n", "one of two\n", "start the application\n", "exit code 1\n", "Flags            42\n"]
    {
        assert!(ran.out.contains(said), "{said:?} is not in\n{}", ran.out);
    }
    api.stop().await;
}
