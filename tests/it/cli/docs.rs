//! What the document about the command line shows is what happens.

use std::path::Path;
use std::process::Command;

use super::ran;
use crate::http::Api;

/// The shell blocks of a document, in one script.
fn script(document: &str) -> String {
    let blocks = document.split("```sh\n").skip(1);
    blocks.map(|rest| rest.split("```").next().unwrap()).collect()
}

#[tokio::test]
async fn every_block_runs() {
    let api = Api::start().await;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/cli.md");
    let script = script(&std::fs::read_to_string(path).unwrap());
    assert!(script.lines().count() > 50, "only a part of the document was found:\n{script}");
    let dir = tempfile::tempdir().unwrap();
    let programs = Path::new(env!("CARGO_BIN_EXE_weft")).parent().unwrap().to_str().unwrap();
    let search = format!("{programs}:/usr/bin:/bin");
    let mut shell = Command::new("/bin/sh");
    shell.current_dir(dir.path()).args(["-eux", "-c", &script]);
    let env = [("PATH", search.as_str()), ("WEFT_HTTP_ADDR", &api.address.to_string())];
    let ran = ran(shell, &env, &[]).await;
    assert_eq!(ran.code, 0, "{}\n{}", ran.out, ran.err);
    for said in
        ["I lead\n", "one of two\n", "start the application\n", "exit code 1\n", "Flags            42\n"]
    {
        assert!(ran.out.contains(said), "{said:?} is not in\n{}", ran.out);
    }
    api.stop().await;
}
