"""An agent that knows that its answers are bad, says so, and goes on."""

import json
import os
import socket
import sys
import time

path = os.environ.get("AGT_SOCKET")
if path is None:
    sys.exit("no AGT_SOCKET: this host gives the agent no view of its own (see `agt-supervise doctor`)")

with socket.socket(socket.AF_UNIX) as control:
    control.connect(path)
    lines = control.makefile("rw")

    def say(**report):
        lines.write(json.dumps(report) + "\n")
        lines.flush()
        return json.loads(lines.readline())

    for number in range(1, 61):
        say(task="start", id=f"answer-{number}")
        print(f"answer {number}: 2 + 2 = 5", flush=True)
        said = say(task="end", id=f"answer-{number}", outcome="bad", cost_usd=0.01)
        if not said["ok"]:
            print(f"the supervisor says: {said['error']}", flush=True)
        time.sleep(0.2)

print("nobody stopped me", flush=True)
