services {
  name = "Big_Name"
  connect { native = true, sidecar_service {} }
}
