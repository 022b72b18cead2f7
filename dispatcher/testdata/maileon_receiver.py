"""A callback as a user of Maileon writes one, from the vendor's description of
outgoing webhooks alone: always POST. Simple data comes as URL parameters, such as
"firstname=Max&lastname=Mustermann"; with body fields there is a JSON object in the
body and the content type says so, and without them there is no body.

  python3 maileon_receiver.py

It prints the port that it listens on, and then a line of JSON for each call: the
parameters as [name, value] in the order they came in, and the body, null for none.
"""

import http.server
import json
import urllib.parse


class Page(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        query = urllib.parse.urlsplit(self.path).query
        parameters = urllib.parse.parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
        length = int(self.headers.get("Content-Length") or 0)
        media_type = self.headers.get_content_type() if "Content-Type" in self.headers else None
        if (media_type == "application/json") != (length > 0):
            self.answer(415)
            return
        body = json.loads(self.rfile.read(length)) if length else None
        if body is not None and any(isinstance(value, (dict, list)) for value in body.values()):
            self.answer(400)  # it is to be flat
            return
        print(json.dumps({"parameters": parameters, "body": body}), flush=True)
        self.answer(200)

    def answer(self, status):
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
print(server.server_port, flush=True)
server.serve_forever()
