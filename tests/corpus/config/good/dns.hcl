# Everything about DNS, with Consul's names; `zones` is ours.
domain     = "Mesh.Example."
alt_domain = "consul"
recursors  = ["10.0.0.2", "10.0.0.3:5353", "2001:db8::1", "[2001:db8::2]:54", "10.0.0.2"]

dns_config {
  allow_stale                     = false
  max_stale                       = "10s"
  use_cache                       = true
  node_ttl                        = "30s"
  service_ttl                     = { "*" = "5s", "web*" = "10s", "Web-Api" = "15s" }
  only_passing                    = true
  enable_truncate                 = false
  disable_compression             = true
  enable_additional_node_meta_txt = false
  udp_answer_limit                = 5
  a_record_limit                  = 0
  recursor_timeout                = "1s"
  recursor_strategy               = "random"
  soa { refresh = 100 retry = 50 expire = 1000 min_ttl = 7 }
  zones = [
    { name = "cluster.local", kind = "kubernetes" },
    { name = "internal.example.com", kind = "cloudmap", ttl = "20s", when_all_unhealthy = "none" },
  ]
}
