// line
/* block
   comment */
service {
  "name" = "web" # quoted key
  tags   = ["a", "b",]
  meta {
    literal = "x-${USER} ${file("a")}"
    text    = <<EOF
two
lines
EOF
    indented = <<-END
      cut
        here
      END
  }
  tagged_addresses {
    lan { address = "10.0.0.1" port = 80 }
  }
}
