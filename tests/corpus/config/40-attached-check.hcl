service { name = "web" }
check { name = "ok", ttl = "10s", service_id = "web" }
check { name = "lost", ttl = "10s", service_id = "nope" }
