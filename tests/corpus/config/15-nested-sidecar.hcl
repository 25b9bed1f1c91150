service {
  name = "web"
  connect {
    sidecar_service {
      id = "my-sidecar"
      connect {
        sidecar_service {}
      }
    }
  }
}
