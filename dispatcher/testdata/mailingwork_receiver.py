"""A callback as a user of Mailingwork writes one, from the vendor's description of
webhooks and its sample alone: each event is connected to a URL of its own, because
the JSON in the body of the POST does not name it.

  python3 mailingwork_receiver.py

It prints the port that it listens on, and then a line of JSON for each call: the
event that the URL stands for, the subscriber's number, its fields by their numbers,
whether each list is set, and when, in seconds since 1970.
"""

import calendar
import http.server
import json
import time

# What names the setup and the time in the body, by the event that a URL is for.
EVENTS = {
    "/optin_finalized": ("optinsetup_id", "activate_at"),
    "/optout_finalized": ("optoutsetup_id", "finalized_at"),
    "/profilemanager_finalized": ("profilemanager_id", "changed_at"),
}


class Page(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        setup, at = EVENTS[self.path]
        if sorted(body) != sorted(["id", setup, "subscriber_id", "fields", "lists", at]):
            self.answer(400)
            return
        when = time.strptime(body[at], "%Y-%m-%d %H:%M:%S")
        understood = {
            "event": self.path[1:],
            "setup": body[setup] + 0,
            "subscriber": body["subscriber_id"] + 0,
            "fields": {field["id"]: field["value"] for field in body["fields"]},
            "lists": {entry["id"]: entry["value"] == 1 for entry in body["lists"]},
            "at": calendar.timegm(when),
        }
        print(json.dumps(understood), flush=True)
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
