services = [
  { name = "" },
  { port = 80 },
  { name = "two words" },
  { name = "a/b" },
  { name = "*" },
  { name = "fine", id = ".." },
]
