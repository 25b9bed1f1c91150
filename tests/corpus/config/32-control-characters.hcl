service { name = "web"  tags = ["‮"] prot = 1 }
