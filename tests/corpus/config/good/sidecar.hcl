# Sidecar proxy for mTLS and service mesh
service {
name = "user-service"
port = 8080
connect {
sidecar_service {
proxy {
upstreams {
destination_name = "database"
local_bind_port = 5432
}
}
}
}
}
# Application connects to localhost:5432
# Consul proxy handles routing and mTLS
