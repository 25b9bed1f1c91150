service = { name = "a", port = 1, weights { passing = 10 warning = 1 } connect { sidecar_service {} } }
services { name = "b" check { ttl = "10s" } }
services { Name = "c" Port = 0x50 }
