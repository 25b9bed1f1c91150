service {
  name = web
  port : 8080
  id =
  tags = ["a" "b"]
  = 5
  address 10
  check { ttl = 10s }
}
