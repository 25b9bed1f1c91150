checks = { ttl = "1s" }
