//! Keys and values.

use super::{TEXT, assert_nothing, assert_put};
use crate::http::Api;

#[tokio::test]
async fn values_look_as_in_consul() {
    let api = Api::start().await;
    assert_put(&api, "/v1/kv/foo", "bar", "true").await;
    let got = api.get("/v1/kv/foo").await;
    let foo = r#"{"LockIndex":0,"Key":"foo","Flags":0,"Value":"YmFy","CreateIndex":0,"ModifyIndex":0}"#;
    assert_eq!(got.shape(), format!("[{foo}]"));
    let json = got.json();
    assert_eq!(json[0]["CreateIndex"], json[0]["ModifyIndex"]);
    assert_eq!(json[0]["ModifyIndex"].as_u64(), Some(got.index()));
    assert_eq!(got.header("x-consul-knownleader"), "true");
    assert_eq!(got.header("x-consul-lastcontact"), "0");
    assert_eq!(got.header("x-consul-effective-consistency"), "");

    let raw = api.get("/v1/kv/foo?raw").await;
    assert_eq!((raw.status, raw.body.as_str(), raw.index()), (200, "bar", got.index()));
    assert_eq!(raw.header("content-type"), "text/plain");
    assert_eq!(raw.header("content-security-policy"), "sandbox");
    assert_eq!(raw.header("x-content-type-options"), "nosniff");

    for (target, body) in [
        ("/v1/kv/?keys", r#"["foo"]"#.to_owned()),
        ("/v1/kv/?keys=True", r#"["foo"]"#.to_owned()),
        ("/v1/kv/?recurse", format!("[{foo}]")),
        ("/v1/kv/f?recurse=1", format!("[{foo}]")),
        ("/v1/kv/fo?keys", r#"["foo"]"#.to_owned()),
    ] {
        let got = api.get(target).await;
        assert_eq!(got.shape(), body, "{target}");
        assert!(got.index() > 0);
    }
    for target in ["/v1/kv/nope", "/v1/kv/nope?raw", "/v1/kv/nope?recurse", "/v1/kv/nope?keys"] {
        assert_nothing(&api.get(target).await);
    }
    assert_put(&api, "/v1/kv/foo?cas=1", "x", "false").await;
    assert_put(&api, "/v1/kv/foo?flags=42", "x", "true").await;
    assert_eq!(api.get("/v1/kv/foo").await.json()[0]["Flags"], 42);
    assert_put(&api, "/v1/kv/empty", "", "true").await;
    assert!(api.get("/v1/kv/empty").await.json()[0]["Value"].is_null());
    for target in ["/v1/kv/foo", "/v1/kv/never", "/v1/kv/e?recurse"] {
        let gone = api.send("DELETE", target, &[], "").await;
        assert_eq!((gone.status, gone.body.as_str()), (200, "true"), "{target}");
    }
    assert_eq!(api.get("/v1/kv/?keys").await.body, "[]");
    assert_nothing(&api.get("/v1/kv/?recurse").await);
    api.stop().await;
}

#[tokio::test]
async fn compare_and_set_by_index() {
    let api = Api::start().await;
    assert_put(&api, "/v1/kv/a?cas=0", "1", "true").await;
    assert_put(&api, "/v1/kv/a?cas=0", "2", "false").await;
    let index = api.get("/v1/kv/a").await.index();
    assert_put(&api, &format!("/v1/kv/a?cas={index}"), "3", "true").await;
    assert_put(&api, &format!("/v1/kv/a?cas={index}"), "4", "false").await;
    assert_eq!(api.get("/v1/kv/a?raw").await.body, "3");
    let delete = async |index| api.send("DELETE", &format!("/v1/kv/a?cas={index}"), &[], "").await.body;
    assert_eq!(delete(index).await, "false");
    let index = api.get("/v1/kv/a").await.index();
    assert_eq!(delete(index).await, "true");
    assert_put(&api, &format!("/v1/kv/a?cas={index}"), "5", "false").await;
    api.stop().await;
}

#[tokio::test]
async fn a_key_is_any_text_and_a_value_any_bytes() {
    let api = Api::start().await;
    for key in
        ["a/b/c", "a%2Fd", "with%20space", "%C3%A9/%E2%82%AC", "50%25", "a+b", "/lead", "dir/", "%00x"]
    {
        assert_put(&api, &format!("/v1/kv/{key}"), key, "true").await;
        assert_eq!(api.get(&format!("/v1/kv/{key}?raw")).await.body, key);
    }
    let keys = api.get("/v1/kv/?keys").await.json();
    for key in ["a/d", "with space", "é/€", "50%", "a+b", "/lead", "dir/", "\0x"] {
        assert!(keys.as_array().unwrap().iter().any(|known| known == key), "{key:?} not in {keys}");
    }
    assert_eq!(api.get("/v1/kv/a/?keys&separator=/").await.body, r#"["a/b/","a/d"]"#);
    assert_eq!(api.get("/v1/kv/a/?keys&seperator=%2F").await.body, r#"["a/b/","a/d"]"#);
    assert_eq!(api.get("/v1/kv/%FF").await.status, 400);

    // What curl sends with --data, and what no text is.
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let put = api.send("PUT", "/v1/kv/form", &form, "a=1&b=%20").await;
    assert_eq!((put.status, put.body.as_str()), (200, "true"));
    assert_eq!(api.get("/v1/kv/form?raw").await.body, "a=1&b=%20");
    let head = format!("PUT /v1/kv/bin HTTP/1.1\r\nConnection: close\r\nHost: {}\r\n", api.address);
    let mut request = format!("{head}Content-Length: 256\r\n\r\n").into_bytes();
    request.extend(0..=255);
    assert_eq!(api.raw(&request).await.body, "true");
    let value = api.get("/v1/kv/bin").await.json()[0]["Value"].as_str().unwrap().to_owned();
    assert_eq!((value.len(), &value[..8], &value[340..]), (344, "AAECAwQF", "/w=="));
    api.stop().await;
}

#[tokio::test]
async fn faults_by_table() {
    let api = Api::start().await;
    for (method, target, status, body) in [
        ("GET", "/v1/kv/", 400, "Missing key name"),
        ("PUT", "/v1/kv/", 400, "Missing key name"),
        ("DELETE", "/v1/kv/", 400, "Missing key name"),
        ("PUT", "/v1/kv/a?flags=x", 400, "Invalid flags: \"x\" is not a whole number"),
        ("PUT", "/v1/kv/a?cas=-1", 400, "Invalid cas: \"-1\" is not a whole number"),
        ("PUT", "/v1/kv/a?cas=1&acquire=s", 400, "Conflicting flags: acquire=s&cas=1"),
        ("DELETE", "/v1/kv/a?recurse&cas=1", 400, "Conflicting flags: cas=1&recurse="),
        ("PUT", "/v1/kv/a?acquire=", 500, "missing session"),
        ("PUT", "/v1/kv/a?acquire=nobody", 500, "invalid session \"nobody\""),
        ("PUT", "/v1/kv/a?dc=dc9", 500, "No path to datacenter"),
        ("GET", "/v1/kv/a?index=x", 400, "Invalid index"),
        ("POST", "/v1/kv/a", 405, "method POST not allowed"),
    ] {
        let answer = api.send(method, target, &[], "").await;
        assert_eq!((answer.status, answer.body.as_str()), (status, body), "{method} {target}");
        assert_eq!(answer.header("content-type"), TEXT, "{method} {target}");
    }
    assert_eq!(api.send("OPTIONS", "/v1/kv/a", &[], "").await.header("allow"), "OPTIONS,GET,PUT,DELETE");
    let large = "x".repeat(512 * 1024);
    assert_put(&api, "/v1/kv/large", &large, "true").await;
    let refused = api.put("/v1/kv/large", &format!("{large}x")).await;
    assert_eq!(refused.status, 413);
    assert_eq!(refused.body, "Request body too large, max size: 524288 bytes");
    assert_eq!(api.get("/v1/kv/large?raw").await.body.len(), large.len());
    let long = api.put(&format!("/v1/kv/{}", "k".repeat(1001)), "x").await;
    assert_eq!(long.status, 400);
    assert!(long.body.contains("at most 1000"), "{}", long.body);
    let foreign = [("Origin", "http://evil.example")];
    assert_eq!(api.send("PUT", "/v1/kv/evil", &foreign, "x").await.status, 403);
    assert_nothing(&api.get("/v1/kv/evil").await);
    api.stop().await;
}
