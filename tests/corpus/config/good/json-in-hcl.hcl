{"service": {"name": "web", "check": {"ttl": "10s"}}}
