//! What people and other programs write.

use swarm_proto::{
    ClusterId, Digest, PeerKey, UnixMillis,
    api::{ArrayRequest, Stats, SubmitLine, SubmitRequest, Text},
    identity::Kind,
    token::Token,
};

use super::kind;

/// With the numbers of [`crate::words::KINDS`].
pub(super) fn words() -> Vec<Vec<u8>> {
    let token =
        Token { kind: Kind::Node, cluster: ClusterId([7; 16]), pin: [9; 32], secret: [3; 20], addresses: vec!["100.64.0.1:4749".into()] };
    let credentials = format!(
        r#"{{"name":"ann","role":"admin","cluster":"{}","node":"100.64.0.1:4749","key":"MC4CAQ==","certificate":"AAAA","roots":["AAAA"]}}"#,
        ClusterId([1; 16])
    );
    let (digest, key) = (Digest([0xab; 32]).to_string(), PeerKey([0xcd; 32]).to_string());
    [
        (0, token.to_string().as_str()),
        (1, &digest),
        (2, &ClusterId([1; 16]).to_string()),
        (3, &key),
        (4, "0123456789abcdef"),
        (5, "j17"),
        (6, "j17.3"),
        (7, "n3"),
        (8, "300.2"),
        (9, "44.1"),
        (10, "tag:swarm"),
        (10, "cap:example.com/cap/swarm"),
        (11, "admin"),
        (12, "worker"),
        (13, "pi.tail.ts.net:4747"),
        (13, "[fd00::1]:4747"),
        (14, "1.5GiB"),
        (15, "1h30m"),
        (16, "0-999"),
        (17, "zone=attic"),
        (18, "port=3"),
        (19, "3:exit,timeout"),
        (20, "data/=in"),
        (21, "a/b/c"),
        (22, "24h"),
        (22, "tag:swarm"),
        (23, &credentials),
    ]
    .into_iter()
    .map(|(number, text)| kind(number, text))
    .collect()
}

/// The first byte: 1 is TOML, 2 JSON.
pub(super) fn job_files() -> Vec<Vec<u8>> {
    let toml = "argv = [\"sha256sum\", \"{}\"]\narray = \"5-9\"\nenv = { LANG = \"C\" }\nstdin = \"text\"\ncores = 2\nmemory = \"512MiB\"\n\
        disk = 1024\ntimeout = \"30s\"\nretries = { exit = 3 }\non_partition = \"stop\"\noutputs = ['out']\n";
    let several = "[[job]]\nargv = ['a']\npatience = '1m'\n[[job]]\nargv = ['b']\nretries = '2:exit'\ninputs = ['tool', 'data/=in']\n";
    let json = r#"{"argv": ["a", "{}"], "array": {"first": 5, "count": 5}, "stdin": {"utf8": "t"}, "cores": 0.5, "timeout_ms": 3000, "retries": "3:exit"}"#;
    let list = r#"[{"noop": true, "array": ["a", "b"]}, {"argv": ["b"], "stdin": {"base64": "AAA="}, "key": "k"}]"#;
    vec![kind(1, toml), kind(1, several), kind(2, json), kind(2, list)]
}

/// The first byte says how many variables there are; each has the place of its key, its length and its value.
pub(super) fn configs() -> Vec<Vec<u8>> {
    let full: String = mesh_config::reference().iter().map(|one| format!("# {}\n", one.key)).collect();
    let some = "[node]\nname = \"pi\"\nvoter = \"never\"\n[node.labels]\nzone = \"attic\"\n[mesh]\nkind = \"wireguard\"\ninterface = \"wg0\"\n\
        peers = [\"a.b:4747\", \"10.0.0.2\"]\ncertificate_life = \"12h\"\n[exec]\nenabled = true\nsandbox = \"none\"\nuser = \"t\"\n\
        [resources]\ncores = 1.5\nmemory = \"1GiB\"\nnamed = { port = 3 }\n[blobs]\nquota = \"10GB\"\nsend_rate = \"1MiB\"\n\
        [api]\nport = 4749\ngroup = \"swarm\"\ngroup_role = \"viewer\"\n[log]\nlevel = \"debug\"\nformat = \"json\"\n";
    let env = [&[1, 2, 3][..], b"a=b", b"[log]\nlevel = 'info'\n"].concat();
    vec![kind(0, some), kind(0, full), kind(0, mesh_config::commented(&[])), env]
}

/// As [`crate::host::answers`] reads them.
pub(super) fn answers() -> Vec<Vec<u8>> {
    let node = r#"{"HostName":"pi","DNSName":"pi.tail.ts.net.","OS":"linux","TailscaleIPs":["100.64.0.2","fd7a::2"],"Tags":["tag:swarm"],"Online":true,"CurAddr":"1.2.3.4:5","Relay":"fra","UserID":7}"#;
    let status = format!(
        r#"{{"BackendState":"Running","TUN":true,"Self":{node},"MagicDNSSuffix":"tail.ts.net","Peer":{{"k":{node},"l":{{"HostName":"b","UserID":7,"TailscaleIPs":null}}}},"User":{{"7":{{"LoginName":"ann@x"}}}}}}"#
    );
    let whois =
        r#"{"Node":{"Name":"pi.tail.ts.net.","Tags":null},"UserProfile":{"LoginName":"ann@x"},"CapMap":{"example.com/cap/swarm":[{}]}}"#;
    let http = "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\ncontent-length: 2\r\n\r\n{}";
    let refused = "HTTP/1.0 403 Forbidden\r\n\r\nno\n";
    let wg = "wg0\tk=\t10.0.0.2/32 fd00::2/128\nwg1\tl=\t10.0.0.3/32 192.168.7.0/24\nwg0\tm=\t(none)\n";
    vec![kind(0, status), kind(1, whois), kind(2, http), kind(2, refused), kind(3, wg), kind(3, "Unable to access interface: no\n")]
}

/// With the numbers of [`crate::api::KINDS`].
pub(super) fn api() -> Vec<Vec<u8>> {
    let request = SubmitRequest {
        id: "7".into(),
        argv: vec!["a".into(), "{}".into()],
        stdin: Some(Text::Utf8("x".into())),
        array: Some(ArrayRequest { items: vec!["a".into(), "b".into()], ..ArrayRequest::default() }),
        cores: Some(0.5),
        timeout_ms: Some(3_000),
        outputs: vec!["out".into()],
        ..SubmitRequest::default()
    };
    let line = serde_json::to_string(&request).expect("plain data");
    let lines = "\x20{\"id\":\"a\",\"argv\":[\"true\"]}\n{\"id\":\"b\",\"argv\":[\"true\"]}\r\n\n{\"id\":\"c\",\"key\":\"k\",\"argv\":[\"true\"]}\n{\"id\":\"d\",\"nonsense\":1}\n";
    let json = |value: serde_json::Value| value.to_string();
    let stats = serde_json::to_string(&Stats { throughput: 1.5, success_rate: Some(0.5), ..Stats::default() }).expect("plain data");
    let busy = serde_json::to_string(&SubmitLine::Refused {
        id: "1".into(),
        problem: swarm_proto::Problem::new(swarm_proto::Code::Busy, "w", "y"),
    });
    let mut list: Vec<Vec<u8>> = [
        (0, lines.to_owned()),
        (0, format!("\x05{line}\n{line}\n")),
        (1, line),
        (2, json(serde_json::json!({"role": "voter", "uses": 2, "life_ms": 60000}))),
        (3, json(serde_json::json!({"name": "ann", "role": "admin"}))),
        (4, json(serde_json::json!({"user": "ann", "role": "viewer"}))),
        (5, json(serde_json::json!({}))),
        (10, json(serde_json::json!({"key": "k"}))),
        (11, json(serde_json::json!({"value": "debug"}))),
        (14, json(serde_json::json!({"bytes": {"stream": "stdout", "data": {"base64": "AAA="}}}))),
        (19, stats),
        (22, json(serde_json::json!({"code": "busy", "what": "w", "why": "y", "hint": "h"}))),
        (23, "wait=1.5".to_owned()),
    ]
    .into_iter()
    .map(|(number, text)| kind(number, text))
    .collect();
    list.extend(busy.map(|text| kind(12, text)));
    let event = serde_json::json!({"cursor": "4.1", "at": UnixMillis(1), "what": {"node_left": {"node": "n1"}}});
    list.push(kind(21, event.to_string()));
    list
}
