//! The program under Consul's name: words and exit codes that no recording has.

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::Consul;
use crate::http::{Api, PATIENCE};
use crate::pace::look_again;

/// A line, its exit code, what it prints, and how what it says on stderr begins.
const OUTCOMES: &[(&str, i32, &str, &str)] = &[
    ("validate good.hcl", 0, "Configuration is valid!\n", ""),
    ("validate -quiet good.hcl", 0, "", ""),
    ("validate bad.hcl", 1, "", "Config validation failed: "),
    ("validate none.hcl", 1, "", "Config validation failed: "),
    ("intention check web api", 0, "Allowed\n", ""),
    ("intention create -deny web api", 0, "Created: web => api (deny)\n", ""),
    ("intention check web api", 1, "Denied\n", ""),
    ("intention check web *", 2, "", ""),
    ("intention check web", 2, "", ""),
    ("intention create -file ixn.json", 0, "Created: a => b (deny)\n", ""),
    ("intention create -allow -deny c d", 1, "", ""),
    ("intention get x y", 1, "", "Intention with source \"x\" and destination \"y\" not found.\n"),
    (
        "intention delete x y",
        1,
        "",
        "Error: Intention with source \"x\" and destination \"y\" not found.\n",
    ),
    ("intention match -source a", 0, "a => b (deny)\n", ""),
    ("kv get none", 1, "", "Error! No key exists at: none\n"),
    ("kv get", 1, "", "Error! Missing KEY argument\n"),
    ("kv get a b", 1, "", "unexpected argument 'b' found"),
    ("kv put -cas k v", 1, "", "Must specify -modify-index with -cas!\n"),
    ("kv put -cas -modify-index=999 k v", 1, "", "Error! Did not write to k: CAS failed\n"),
    ("kv put -acquire k v", 1, "", "Error! Missing -session (required with -acquire and -release)\n"),
    ("kv put -flags=x k v", 1, "", "invalid value 'x' for '-flags <N>'"),
    ("kv put k @none", 1, "", "Error! Failed to read file: open none: "),
    ("kv delete -cas k", 1, "", "Cannot delete a key that does not exist. "),
    ("members -status=failed", 2, "", ""),
    ("maint -reason=x", 1, "", "Reason may only be provided with -enable\n"),
    (
        "maint -enable -service=none",
        1,
        "",
        "Error enabling service maintenance: Unexpected response code: 404 (",
    ),
    ("services register", 1, "", "Service registration requires at least one argument or flags.\n"),
    ("services register bad.hcl", 1, "", "Error: "),
    ("services deregister -id=none", 0, "Deregistered service: none\n", ""),
    (
        "catalog nodes -node-meta=a=b",
        0,
        "",
        "No nodes match the given query - try expanding your search.\n",
    ),
    (
        "catalog nodes -filter=bogus",
        1,
        "",
        "Error listing nodes: Unexpected response code: 500 (Failed to create boolean",
    ),
    (
        "catalog nodes -datacenter=dc9",
        1,
        "",
        "Error listing nodes: Unexpected response code: 500 (No path to datacenter)\n",
    ),
    (
        "catalog services -format=json",
        1,
        "",
        "flag provided but not defined: -format\nUsage: consul catalog services",
    ),
    (
        "config read -kind service-defaults -name none",
        1,
        "",
        "Error reading config entry \"service-defaults\" / \"none\": Unexpected response code: 404 (Config entry not found for",
    ),
    (
        "config write bad.hcl",
        1,
        "",
        "Failed to decode config entry input: Payload does not contain a kind/Kind key at the top level\n",
    ),
    ("watch -type=event -name=x", 1, "", "there are no events to watch\n"),
    ("watch -type=service -service=none", 0, "[]\n", ""),
    ("watch -type=key -key=none", 0, "null\n", ""),
    ("watch -type=key", 1, "", "Must specify a single key to watch\n"),
    ("join 127.0.0.1", 0, "Successfully joined cluster by contacting 1 nodes.\n", ""),
    ("join 10.9.8.7", 1, "", "Error joining address '10.9.8.7': Unexpected response code: 500 ("),
    ("force-leave none", 0, "", ""),
    ("reload", 1, "", "Error reloading: Unexpected response code: 500 ("),
    ("bogus", 127, "", "Usage: consul [--version] [--help] <command>"),
];

#[tokio::test]
async fn outcomes_by_table() {
    let api = Api::start().await;
    let consul = Consul::of(&api);
    consul.file("good.hcl", "service { name = \"api\" port = 1 }");
    consul.file("bad.hcl", "service { foo = 1 }");
    consul.file("ixn.json", r#"{"SourceName":"a","DestinationName":"b","Action":"deny"}"#);
    api.put("/v1/agent/service/register", r#"{"Name":"web","Port":80}"#).await;
    for (line, code, out, err) in OUTCOMES {
        let (code, is_quiet) = (*code, *code == 0 && err.is_empty());
        let ran = consul.line(line).await;
        assert_eq!((ran.code, ran.out.as_str()), (code, *out), "{line}: {}", ran.err);
        assert!(ran.err.starts_with(err) && (!is_quiet || ran.err.is_empty()), "{line}: {}", ran.err);
    }
    api.stop().await;
}

#[tokio::test]
async fn an_entry_is_written_read_and_removed() {
    let api = Api::start().await;
    let consul = Consul::of(&api);
    let text = "Kind = \"service-intentions\"\nName = \"api\"\nSources = [{ Name = \"web\", Action = \"deny\" }]";
    consul.file("rules.hcl", text);
    let written = consul.line("config write rules.hcl").await;
    assert_eq!(written.out, "Config entry written: service-intentions/api\n", "{}", written.err);
    assert_eq!(consul.line("config list -kind service-intentions").await.out, "api\n");
    let read = consul.line("config read -kind service-intentions -name api").await;
    let begin = "{\n    \"Kind\": \"service-intentions\",\n    \"Name\": \"api\",\n";
    assert!(read.out.starts_with(begin), "{}", read.out);
    let entry: Value = serde_json::from_str(&read.out).unwrap();
    assert_eq!(entry["Sources"][0]["Action"], "deny");
    assert_eq!(consul.line("intention check web api").await.out, "Denied\n");
    let late = consul.line("config write -cas -modify-index=1 rules.hcl").await;
    assert_eq!(
        (late.code, late.err.as_str()),
        (1, "Config entry not updated: service-intentions/api\n")
    );
    let deleted = consul.line("config delete -kind service-intentions -name api").await;
    assert_eq!(deleted.out, "Config entry deleted: service-intentions/api\n", "{}", deleted.err);
    consul.file("sd.hcl", "Kind = \"service-defaults\"\nName = \"api\"\nProtocol = \"http\"");
    let refused = consul.line("config write sd.hcl").await;
    let lead = "Error writing config entry service-defaults/api: Unexpected response code: ";
    assert!(refused.code == 1 && refused.err.starts_with(lead), "{}", refused.err);
    api.stop().await;
}

#[tokio::test]
async fn what_the_server_reports_of_itself() {
    let api = Api::start().await;
    let consul = Consul::of(&api);
    let info = consul.line("info").await;
    assert_eq!(info.code, 0, "{}", info.err);
    assert!(info.out.starts_with("agent:\n\tchecks = 0\n\tservices = 0\nbuild:\n\tprerelease = \n"));
    let members = consul.line("members -detailed").await;
    assert!(members.out.contains(",role=consul,"), "{}", members.out);
    let version = consul.line("version").await;
    assert_eq!((version.code, version.out.lines().next()), (0, Some("Consul v1.8.7")));
    let weft = consul.line("intention list").await;
    assert_eq!((weft.code, weft.out.as_str()), (0, "There are no intentions.\n"));
    api.stop().await;
}

/// The server that `consul agent` starts, and everything about it that the flags say.
#[tokio::test]
async fn an_agent_starts_where_it_is_told() {
    let api = Api::start().await;
    let consul = Consul::of(&api);
    consul.file("web.hcl", "service { name = \"web\" port = 80 }");
    let [http, grpc] = [(); 2].map(|()| {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap().port().to_string()
    });
    let mut agent = tokio::process::Command::from(consul.command());
    agent.env_clear().args(["agent", "-dev", "-config-file=web.hcl", "-node", "alpha", "-ui"]);
    agent.args(["-http-port", &http, "-grpc-tls-port", &grpc, "-dns-port=-1", "-datacenter=dc7"]);
    agent.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).kill_on_drop(true);
    let mut agent = agent.spawn().unwrap();
    let mut lines = BufReader::new(agent.stderr.take().unwrap()).lines();
    let first = tokio::time::timeout(PATIENCE, lines.next_line()).await.unwrap().unwrap();
    assert_eq!(first.as_deref(), Some("note: -ui has no effect: there is no user interface"));
    let address = format!("-http-addr=127.0.0.1:{http}");
    let services = ["catalog", "services", &address];
    let wait = async {
        while consul.run(&services).await.out != "consul\nweb\n" {
            look_again().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the agent does not list its services");
    let own = consul.run(&["members", &address]).await;
    assert!(own.out.contains("\nalpha  127.0.0.1:") && own.out.contains("  dc7  "), "{}", own.out);
    let again = ["agent", "-dev", "-http-port", &http, "-grpc-tls-port=0", "-dns-port=-1"];
    let again = consul.run(&again).await;
    assert_eq!(again.code, 1, "{}", again.err);
    assert!(again.err.contains(&format!("cannot listen on 127.0.0.1:{http}")), "{}", again.err);
    let left = consul.run(&["leave", &address]).await;
    assert_eq!((left.code, left.out.as_str()), (0, "Graceful leave complete\n"), "{}", left.err);
    let status = tokio::time::timeout(PATIENCE, agent.wait()).await.unwrap().unwrap();
    assert!(status.success(), "{status}");
    api.stop().await;
}

#[tokio::test]
async fn json_is_there_for_scripts_of_weft_only() {
    let api = Api::start().await;
    let env = [("WEFT_HTTP_ADDR", api.address.to_string())];
    let env = [(env[0].0, env[0].1.as_str())];
    for args in [
        vec!["members"],
        vec!["info"],
        vec!["catalog", "services"],
        vec!["catalog", "nodes", "--detailed"],
        vec!["catalog", "datacenters"],
        vec!["kv", "put", "a/b", "c"],
        vec!["kv", "get", "a/b"],
        vec!["kv", "get", "--recurse"],
        vec!["kv", "get", "--keys"],
        vec!["kv", "export"],
        vec!["kv", "delete", "a/b"],
        vec!["services", "register", "--name", "web"],
        vec!["services", "deregister", "--id", "web"],
        vec!["maint"],
        vec!["maint", "--enable"],
        vec!["intention", "create", "a", "b"],
        vec!["intention", "get", "a", "b"],
        vec!["intention", "match", "b"],
        vec!["config", "list", "--kind", "service-defaults"],
        vec!["watch", "--type", "nodes"],
    ] {
        let mut with_output = vec!["-o", "json"];
        with_output.extend(&args);
        let ran = super::weft(&env, &with_output).await;
        assert_eq!(ran.code, 0, "{args:?}: {}", ran.err);
        let value: Value = serde_json::from_str(&ran.out)
            .unwrap_or_else(|fault| panic!("{args:?} {fault}: {}", ran.out));
        assert!(value.is_object() || value.is_array(), "{args:?}");
    }
    api.stop().await;
}
