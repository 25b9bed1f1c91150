service {
  name = "web"
  check {
    args     = ["/bin/true"]
    interval = "10s"
  }
  checks {
    udp      = "localhost:53"
    interval = "10s"
  }
  checks {
    h2ping   = "localhost:443"
    interval = "10s"
  }
  checks {
    docker_container_id = "f972c95ebf0e"
    shell               = "/bin/bash"
    args                = ["/bin/true"]
    interval            = "10s"
  }
  checks {
    os_service = "web.service"
    interval   = "10s"
  }
  checks {
    script   = "/bin/true"
    interval = "10s"
  }
}
