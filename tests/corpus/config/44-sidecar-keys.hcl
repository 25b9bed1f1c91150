service {
  name = "web"
  connect {
    sidecar_service {
      kind                = "mesh-gateway"
      tagged_addresses    { lan { address = "10.0.0.1" } }
      enable_tag_override = true
      upstreams           = []
      proxy {
        destination_service_name = "other"
        local_service_port       = "8080"
        upstream { destination_name = "db" }
      }
    }
  }
}
