# Checks of every kind, scripts among them, because this file allows them.
enable_local_script_checks = true

service {
  name = "web"
  port = 8080

  checks = [
    { http = "http://127.0.0.1:8080/health", interval = "10s" },
    { tcp = "127.0.0.1:8080", tcp_use_tls = true, tls_skip_verify = true, interval = "10s" },
    { udp = "127.0.0.1:53", interval = "10s" },
    { grpc = "127.0.0.1:9000/web", interval = "10s" },
    { h2ping = "127.0.0.1:9000", interval = "10s" },
    { h2ping = "127.0.0.1:9001", h2ping_use_tls = false, interval = "10s" },
    { os_service = "nginx.service", interval = "1m" },
    { args = ["/usr/bin/test", "-e", "/var/run/web"], interval = "10s", failures_before_warning = 1, failures_before_critical = 3 },
    { ttl = "30s" },
    { alias_service = "web" },
    { alias_node = "n1" },
  ]
}
