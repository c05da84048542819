"""A client that knows nothing of rings: it takes a page, and tries what it was not given."""
import socket
import urllib.error
import urllib.request


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status
    except urllib.error.HTTPError as refused:
        return refused.code


print("allowed:", get("http://127.0.0.1:8099/agent.py"))
print("elsewhere:", get("http://169.254.169.254/latest/meta-data/"))
try:
    socket.create_connection(("192.0.2.1", 80), timeout=5)
except OSError as error:
    print("around the gateway:", error)
