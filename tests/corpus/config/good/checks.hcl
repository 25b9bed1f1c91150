service {
  name = "web"
  id   = "web-1"
  port = 8080
  check { http = "http://localhost:8080/health" interval = "10s" method = "post" header { X-Probe = ["1", "2"] } }
  checks = [
    { id = "mem", name = "Memory", ttl = "30s", status = "passing", notes = "n" },
    { TCP = "127.0.0.1:8080", Interval = "5s", Timeout = "2s", SuccessBeforePassing = 2, FailuresBeforeCritical = 3 },
    { grpc = "127.0.0.1:9000/db", interval = "5s", grpc_use_tls = true, DeregisterCriticalServiceAfter = "2m" },
    { alias_service = "db" },
  ]
}
check { name = "disk" ttl = "1m" }
checks = { id = "extra", name = "on web", ttl = "1s", service_id = "web-1" }
