service {
  name = "web"
  meta {
    "bad key!" = "1"
    good       = "2"
  }
  weights {
    passing = 0
    warning = -1
  }
}
service {
  name = "db"
  weights { passing = 70000 }
}
