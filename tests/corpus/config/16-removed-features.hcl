service {
  name = "web"
  connect {
    proxy {
      command = ["/bin/proxy"]
    }
  }
  check {
    script   = "exit 0"
    interval = "5s"
  }
}
