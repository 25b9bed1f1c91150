datacenter               = "dc 1"
node_name                = "a/b"
log_level                = "loud"
client_addr              = "10.0.0.1 127.0.0.1"
advertise_addr           = "{{ GetPrivateIP }}"
default_intention_policy = "maybe"
server                   = true
bootstrap_expect         = 3
encrypt                  = "pUqJrVyVRj5jsiYEkM/tFQYfWyJIv4s3XkvDwy7Cu5s="
data_dri                 = "/var/lib/weft"
retry_join               = ["10.0.0.2"]
ports {
  http = 8500
  https = 8501
  dns = -2
}
acl {
  enabled = true
  default_policy = "deny"
}
