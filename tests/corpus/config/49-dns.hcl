domain    = "a..b"
alt_domain = "not a domain"
recursors = ["dns.example.com", 5, "10.0.0.1:x"]
dns_config {
  node_ttl          = "300h"
  service_ttl       = { "web" = "10", "db" = 5 }
  only_passing      = "yes"
  udp_answer_limit  = 0
  recursor_strategy = "fastest"
  recursor_timeout  = "1m"
  soa               { min_ttl = -1 serial = 3 }
  zones             = [
    { name = "cluster.local" },
    { name = "x.example", kind = "route53" },
    { name = "y.example", kind = "kubernetes", when_all_unhealthy = "all" },
    { kind = "cloudmap", when_all_unhealthy = "some" },
  ]
  a_record_limits   = 3
}
