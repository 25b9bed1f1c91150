service {
  name = "windows"
  port = 80
}
