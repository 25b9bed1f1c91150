service {
  name = "web-proxy"
  kind = "connect-proxy"
  port = 21000
  proxy {
    destination_service_name = "web"
    destination_service_id   = "web-1"
    local_service_port       = 8080
    upstreams { destination_name = "db" local_bind_port = 5432 }
  }
}
