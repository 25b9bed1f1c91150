service {
  name = "web"
}
service {
  name = "db"
}
