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
            connect_timeout_ms = 1500
            limits {
              max_connections      = 100
              max_pending_requests = 10
            }
            passive_health_check {
              interval             = "30s"
              max_failures         = 10
              max_ejection_percent = 50
              base_ejection_time   = "5s"
            }
          }
        }
      }
    }
  }
}
