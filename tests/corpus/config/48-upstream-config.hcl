service {
  name = "web"
  port = 8080
  connect {
    sidecar_service {
      proxy {
        upstreams {
          destination_name = "db"
          local_bind_port  = 5432
          config {
            connect_timeout_ms = "soon"
            limits {
              max_connections         = -1
              max_pending             = 3
              max_concurrent_requests = 5
            }
            passive_health_check {
              interval                  = 10.5
              max_failures              = "many"
              max_ejection_percent      = 101
              enforcing_consecutive_5xx = 100
            }
          }
        }
        upstreams {
          destination_name = "cache"
          local_bind_port  = 6379
          config {
            limits = 3
            panic  = "yes"
          }
        }
      }
    }
  }
}
