service {
  name = "web"
  port = 8080
  connect {
    sidecar_service {
      proxy {
        upstreams {
          destination_name = "db"
          local_bind_port  = 5432
        }
        upstreams {
          destination_name   = "cache"
          local_bind_address = "127.0.0.1"
          local_bind_port    = 5432
        }
        upstreams {
          local_bind_port = 7000
        }
        upstreams {
          destination_name = "api"
          local_bind_port  = 0
        }
        upstreams {
          destination_name = "search"
        }
        upstreams {
          destination_name = "queue"
          local_bind_port  = 70000
        }
      }
    }
  }
}
