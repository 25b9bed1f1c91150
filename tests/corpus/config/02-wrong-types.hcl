service {
  name = 5
  port = "8080"
  tags = "v1"
  meta {
    version = 1
  }
  enable_tag_override = "true"
}
