service {
  name = "web
  port = 8080
  tags = ["a", "b]
  address = "10.0.0.1"
}
