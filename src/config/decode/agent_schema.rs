//! Every key that Consul's agent knows at the top of a file, with what becomes of it here.

use super::check::CHECK;
use super::fields::{Reasons, Schema};
use super::service::SERVICE;

pub(super) const TOP: Schema = Schema::of(
    "the configuration",
    &[
        "service",
        "services",
        "check",
        "checks",
        "datacenter",
        "node_name",
        "data_dir",
        "log_level",
        "ports",
        "addresses",
        "client_addr",
        "advertise_addr",
        "default_intention_policy",
        "acl",
        "tls",
        "enable_local_script_checks",
        "enable_script_checks",
        "dns_config",
        "domain",
        "alt_domain",
        "recursors",
    ],
)
.ignoring(IGNORED)
.containing(&[("service", SERVICE.keys), ("check", CHECK.keys)]);

pub(super) const PORTS: Schema = Schema::of("ports", &["http", "https", "grpc_tls", "dns"]).ignoring(&[
    ("gRPC is always TLS; set `grpc_tls`", &["grpc"]),
    ("servers speak to proxies over `grpc_tls` and to each other through the store", SERVER_PORTS),
    ("sidecars listen on 21000 to 21255", &["sidecar_min_port", "sidecar_max_port"]),
    ("no path is reachable without mutual TLS", &["expose_min_port", "expose_max_port"]),
]);

const SERVER_PORTS: &[&str] = &["server", "serf_lan", "serf_wan"];

pub(super) const ADDRESSES: Schema =
    Schema::of("addresses", &["http", "https", "grpc", "grpc_tls", "dns"]);

pub(super) const TLS: Schema = Schema::of("tls", &["defaults", "https"]).ignoring(&[(
    "the mesh makes its own certificates and always speaks TLS 1.3",
    &["grpc", "internal_rpc"],
)]);

pub(super) const TLS_BLOCK: Schema =
    Schema::of("tls", &["cert_file", "key_file", "ca_file", "verify_incoming"]).ignoring(&[
        (
            "TLS 1.3 is the only version, with suites of its own",
            &["tls_min_version", "tls_cipher_suites"],
        ),
        ("name one file with `ca_file`", &["ca_path"]),
        ("servers call nobody over HTTPS", &["verify_outgoing", "verify_server_hostname"]),
    ]);

const NO_TOKENS: &str =
    "tokens of the HTTP API are made with `weft api-token`, without policies and roles";

pub(super) const ACL: Schema = Schema::of("acl", &["enabled", "default_policy"]).ignoring(&[(
    NO_TOKENS,
    &[
        "tokens",
        "down_policy",
        "enable_key_list_policy",
        "enable_token_persistence",
        "enable_token_replication",
        "managed_service_provider",
        "policy_ttl",
        "role_ttl",
        "token_ttl",
    ],
)]);

const IGNORED: Reasons = &[
    ("the role is chosen by the command: `weft server`", &["server", "bootstrap", "bootstrap_expect"]),
    ("there is no gossip and no Raft; servers meet in the store", CLUSTER),
    ("there is one datacenter", FEDERATION),
    ("the mesh makes its own certificates and always speaks TLS 1.3; HTTPS is set in `tls`", OLD_TLS),
    (
        NO_TOKENS,
        &["acl_agent_token", "acl_datacenter", "acl_default_policy", "acl_master_token", "acl_token"],
    ),
    (
        "the mesh is always on and is its own certificate authority",
        &["connect", "auto_encrypt", "auto_config"],
    ),
    ("nothing is run on behalf of a watch or a remote caller", EXECUTION),
    ("set it where the log is collected", LOGGING),
    ("metrics are served to Prometheus, without settings", &["telemetry", "enable_debug"]),
    ("the user interface is part of the HTTP API", &["ui", "ui_config", "ui_content_path", "ui_dir"]),
    ("use the API for configuration entries", &["config_entries", "enable_central_service_config"]),
    ("it is not a setting of the mesh", OTHER),
];

const CLUSTER: &[&str] = &[
    "advertise_reconnect_timeout",
    "autopilot",
    "bind_addr",
    "disable_coordinates",
    "disable_host_node_id",
    "disable_keyring_file",
    "encrypt",
    "encrypt_verify_incoming",
    "encrypt_verify_outgoing",
    "gossip_lan",
    "leave_on_terminate",
    "node_id",
    "non_voting_server",
    "performance",
    "protocol",
    "raft_boltdb",
    "raft_logstore",
    "raft_protocol",
    "raft_snapshot_interval",
    "raft_snapshot_threshold",
    "raft_trailing_logs",
    "read_replica",
    "reconnect_timeout",
    "rejoin_after_leave",
    "retry_interval",
    "retry_join",
    "retry_max",
    "rpc",
    "segment",
    "segments",
    "serf_lan",
    "serf_lan_allowed_cidrs",
    "server_rejoin_age_max",
    "skip_leave_on_interrupt",
    "start_join",
];

const FEDERATION: &[&str] = &[
    "advertise_addr_wan",
    "advertise_addr_wan_ipv4",
    "advertise_addr_wan_ipv6",
    "gossip_wan",
    "partition",
    "peering",
    "primary_datacenter",
    "primary_gateways",
    "primary_gateways_interval",
    "reconnect_timeout_wan",
    "retry_interval_wan",
    "retry_join_wan",
    "retry_max_wan",
    "serf_wan",
    "serf_wan_allowed_cidrs",
    "start_join_wan",
    "translate_wan_addrs",
];

const OLD_TLS: &[&str] = &[
    "ca_file",
    "ca_path",
    "cert_file",
    "enable_agent_tls_for_checks",
    "key_file",
    "server_name",
    "tls_cipher_suites",
    "tls_min_version",
    "tls_prefer_server_cipher_suites",
    "verify_incoming",
    "verify_incoming_https",
    "verify_incoming_rpc",
    "verify_outgoing",
    "verify_server_hostname",
];

const EXECUTION: &[&str] = &["disable_remote_exec", "watches"];

const LOGGING: &[&str] = &[
    "enable_syslog",
    "log_file",
    "log_json",
    "log_rotate_bytes",
    "log_rotate_duration",
    "log_rotate_max_files",
    "syslog_facility",
];

const OTHER: &[&str] = &[
    "advertise_addr_ipv4",
    "advertise_addr_ipv6",
    "audit",
    "auto_reload_config",
    "cache",
    "check_output_max_size",
    "check_update_interval",
    "cloud",
    "default_query_time",
    "disable_anonymous_signature",
    "disable_http_unprintable_char_filter",
    "disable_update_check",
    "discard_check_output",
    "discovery_max_stale",
    "experiments",
    "http_config",
    "license_path",
    "limits",
    "locality",
    "max_query_time",
    "node_meta",
    "pid_file",
    "reporting",
    "session_ttl_min",
    "tagged_addresses",
    "unix_sockets",
    "use_streaming_backend",
];
