service {
  name        = "web"
  kind        = "mesh-gateway"
  token       = "8b1f7a0e-secret"
  socket_path = "/run/web.sock"
  namespace   = "team-a"
  partition   = "default"
  locality    = { region = "eu" }
  connect {
    sidecar_service {
      proxy {
        mode = "transparent"
        transparent_proxy { outbound_listener_port = 22500 }
        mesh_gateway { mode = "local" }
        expose { checks = true }
        config { envoy_bootstrap_json_tpl = "{}" }
        upstreams {
          destination_type       = "prepared_query"
          destination_name       = "geo-db"
          local_bind_socket_path = "/run/db.sock"
          destination_peer       = "east"
        }
      }
    }
  }
}
