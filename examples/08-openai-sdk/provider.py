"""A stand-in for OpenAI: streams one answer on 127.0.0.1:8099, to whoever has its key."""

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "sk-stand-in-0123456789"
WORDS = ["A ", "ring ", "is ", "what ", "the ", "kernel ", "keeps."]


class Provider(BaseHTTPRequestHandler):
    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        if self.headers.get("Authorization") != f"Bearer {KEY}":
            self.send_error(401)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for word in WORDS:
            self.event(request, [{"index": 0, "delta": {"content": word}, "finish_reason": None}])
        if (request.get("stream_options") or {}).get("include_usage"):
            usage = {"prompt_tokens": 20, "completion_tokens": 10_000, "total_tokens": 10_020}
            self.event(request, [], usage)
        self.wfile.write(b"data: [DONE]\n\n")

    def event(self, request, choices, usage=None):
        chunk = {"id": "answer", "object": "chat.completion.chunk", "created": 0, "model": request["model"]}
        chunk.update(choices=choices, usage=usage)
        self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 8099), Provider)
print("the provider is listening on 127.0.0.1:8099", flush=True)
server.serve_forever()
