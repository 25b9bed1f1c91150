service {
  name = "web"
  check {
    tcp                               = "localhost:8080"
    interval                          = "100ms"
    deregister_critical_service_after = "10s"
    failures_before_warning           = 2
  }
  prot = 1
}
