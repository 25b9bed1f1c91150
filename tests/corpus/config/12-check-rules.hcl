service {
  name = "web"
  check { http = "http://localhost/health" }
  checks = [
    { ttl = "10s", http = "http://localhost/", interval = "10s" },
    { ttl = "10s", interval = "5s" },
    { interval = "10s" },
    { tcp = "localhost", interval = "10s" },
    { http = "localhost/health", interval = "10s" },
    { grpc = ":9000/db", interval = "10s" },
    { ttl = "5s", status = "green" },
    {},
  ]
}
