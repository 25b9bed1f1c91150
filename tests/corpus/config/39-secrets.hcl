service {
  name = "web" token = "8b1f7a0e" prot = 1
  check { http = "http://localhost/" interval = "10s" header { Authorization = "Bearer hunter2" } }
}
