datacenter               = "DC2"
node_name                = "n1"
data_dir                 = "/var/lib/weft"
log_level                = "WARN"
client_addr              = "127.0.0.1"
advertise_addr           = "10.0.0.5"
default_intention_policy = "deny"
ports     { http = 8501 grpc_tls = 8504 dns = -1 }
addresses { http = "127.0.0.2" grpc = "127.0.0.3" dns = "127.0.0.4" }
ui_config { enabled = true }
recursors = ["1.1.1.1"]
