"""An application that knows nothing of the mesh: an HTTP server that ends on SIGTERM."""

import http.server
import signal
import sys


class Greeter(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"hello from your own application\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def end(_signal, _frame):
    print("goodbye", flush=True)
    sys.exit(0)


signal.signal(signal.SIGTERM, end)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Greeter).serve_forever()
