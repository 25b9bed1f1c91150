service {
  name = "web"
  port = 1
  port = 2
  meta { a = "1" }
  meta { b = "2" }
  connect { native = true }
  connect { sidecar_service {} }
}
