"""A stand-in for a model: speaks OpenAI's chat completions on 127.0.0.1:8099 and always wants the same three tools.

It runs outside the ring, as a real model does. What it has written depends on what the agent read.
"""

import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MAX_REQUEST = 1 << 20
KEY = "sk-stand-in-0123456789"


def text_of(message):
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def next_call(messages):
    # smolagents hands each tool's result back as a message that starts like this.
    results = [text for text in map(text_of, messages) if text.startswith("Observation")]
    if not results:
        return "read_text", {"path": "notes.txt"}
    if len(results) == 1:
        things = re.findall(r"^- (.+)$", results[0], re.MULTILINE)
        first = things[0] if things else "nothing"
        return "write_text", {"path": "summary.txt", "text": f"{len(things)} things to do, first: {first}\n"}
    return "final_answer", {"answer": "summary.txt is written"}


class Model(BaseHTTPRequestHandler):
    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        if self.path != "/v1/chat/completions" or length > MAX_REQUEST:
            self.send_error(404)
            return
        if self.headers.get("Authorization") != f"Bearer {KEY}":
            self.send_error(401)
            return
        request = json.loads(self.rfile.read(length))
        name, arguments = next_call(request["messages"])
        call = {"id": f"call-{name}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        answer = {
            "id": "answer",
            "object": "chat.completion",
            "created": 0,
            "model": request["model"],
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "tool_calls",
                    "message": {"role": "assistant", "content": None, "tool_calls": [call]},
                }
            ],
            "usage": {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100},
        }
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 8099), Model)
print("the model is listening on 127.0.0.1:8099", flush=True)
server.serve_forever()
