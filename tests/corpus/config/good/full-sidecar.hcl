service {
  name = "web"
  port = 8080
  tags = ["v2"]
  connect {
    native = false
    sidecar_service {
      name    = "web-proxy"
      port    = 21100
      address = "10.0.0.9"
      tags    = ["side"]
      meta    { team = "edge" }
      weights { passing = 5 }
      check   { tcp = "10.0.0.9:21100" interval = "3s" }
      proxy {
        mode                     = "direct"
        local_service_address    = "127.0.0.2"
        local_service_port       = 8081
        destination_service_name = "web"
        mesh_gateway { mode = "none" }
        config {
          protocol                   = "http"
          local_connect_timeout_ms   = 250
          limits { max_connections   = 3 }
        }
        upstreams = [
          { destination_name = "db", local_bind_port = 5432 },
          { destination_name = "db", local_bind_port = 5432, local_bind_address = "127.0.0.2", config { connect_timeout_ms = 1000 } },
        ]
        upstreams { destination_type = "service" destination_name = "api" local_bind_port = 9191 datacenter = "dc1" }
      }
    }
  }
}
