service {
  name = "web"
  /* never closed
}
