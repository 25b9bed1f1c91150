service {
  name     = "web"
  interval = "10s"
  upstreams { destination_name = "db" }
  connect {
    sidecar_service {
      upstreams { destination_name = "db" }
      proxy { local_bind_port = 5432 }
    }
  }
}
