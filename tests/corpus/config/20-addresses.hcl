services = [
  { name = "a", address = "0.0.0.0" },
  { name = "b", address = "::" },
  { name = "c", address = "[::]" },
  { name = "d", address = "not a host" },
  { name = "e", port = 65536 },
  { name = "f", port = -1 },
  { name = "g", port = 80.5 },
]
