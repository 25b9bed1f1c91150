service {
  name = "api"
  port = 8080

  check {
    http     = "http://127.0.0.1:8080/"
    interval = "2s"
    timeout  = "1s"
  }

  connect {
    sidecar_service {}
  }
}
