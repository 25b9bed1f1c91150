name = "web"
port = 8080
serivce { name = "x" }
