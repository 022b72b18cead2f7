"""A callback as a user of MailUp writes one, from the vendor's description of
webhooks alone: parameters by GET or POST; encrypted with RC4 and a key, "then
converted to Base64 encoding. The receiving page - knowing the key - can perform
the opposite operations to extract the data."

  python3 mailup_receiver.py [KEY]

It prints the port that it listens on, and then a line of JSON for each call: the
method, the path, and the parameters as [name, value] in the order they came in.
"""

import base64
import http.server
import json
import sys
import urllib.parse

KEY = sys.argv[1].encode() if len(sys.argv) > 1 else None


def rc4(key, data):
    """RC4 as it became known in 1994: key schedule, then the key stream."""
    state = list(range(256))
    j = 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    out = bytearray()
    i = j = 0
    for byte in data:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        out.append(byte ^ state[(state[i] + state[j]) % 256])
    return bytes(out)


def parameters(text):
    """The parameters of a query or body."""
    if KEY is not None:
        encrypted = base64.b64decode(urllib.parse.unquote(text), validate=True)
        text = rc4(KEY, encrypted).decode("ascii")
    return urllib.parse.parse_qsl(text, keep_blank_values=True, strict_parsing=True)


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.take(urllib.parse.urlsplit(self.path).query)

    def do_POST(self):
        if self.headers.get("Content-Type") != "application/x-www-form-urlencoded":
            self.send_error(415)
            return
        self.take(self.rfile.read(int(self.headers["Content-Length"])).decode("ascii"))

    def take(self, text):
        path = urllib.parse.urlsplit(self.path).path
        print(json.dumps({"method": self.command, "path": path, "parameters": parameters(text)}), flush=True)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
print(server.server_port, flush=True)
server.serve_forever()
