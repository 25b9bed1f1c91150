services = [
  { name = "p1", kind = "connect-proxy" },
  { name = "p2", kind = "connect-proxy", port = 1, proxy = { local_service_port = 8080 } },
  { name = "p3", kind = "conect-proxy", port = 1 },
  { name = "p4", proxy = { destination_service_name = "web" } },
]
