service {
  name = "web"
  prot = 8080
  colour = "blue"
}
