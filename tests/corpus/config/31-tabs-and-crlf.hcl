service {
	name = "web"
	prot = 8080
	# ← wide é
	id = "éé" prt = 1
}
