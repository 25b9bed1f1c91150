service {
  name = "web"
  checks = [
    { ttl = 10 },
    { ttl = "10" },
    { http = "http://localhost/", interval = "5q" },
    { tcp = "localhost:80", interval = "1s", timeout = "soon" },
    { ttl = "0s" },
  ]
}
