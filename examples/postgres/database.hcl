service {
  name = "database"
  port = 15432

  check {
    tcp      = "127.0.0.1:15432"
    interval = "1s"
  }

  connect {
    sidecar_service {}
  }
}
