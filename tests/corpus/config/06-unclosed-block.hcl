service {
  name = "web"
  connect {
    sidecar_service {
      port = 21000
  }
}
