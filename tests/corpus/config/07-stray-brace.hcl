service {
  name = "web"
}
}
