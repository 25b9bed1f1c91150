check {
  name    = 5
  status  = "green"
  timeout = 5
}
check {
  id       = "c"
  interval = "1s"
  status   = "red"
}
