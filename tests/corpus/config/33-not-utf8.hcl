service {
  name = "webÿ"
}
