service {
  name = "web"
  check {
    http     = "http://localhost/"
    interval = "10s"
    notes    = <<EOF
never closed
  }
}
