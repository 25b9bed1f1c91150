services {
  name = "web"
}
services {
  name = "other"
  id   = "web"
}
services {
  name = "api"
  connect { sidecar_service {} }
}
services {
  name = "api-sidecar-proxy"
}
checks = [
  { id = "mem", name = "memory", ttl = "10s" },
  { id = "mem", name = "memory again", ttl = "10s" },
]
