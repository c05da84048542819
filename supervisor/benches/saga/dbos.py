"""Workflows of steps that do nothing, on DBOS with SQLite: so many at once, so many steps each, again for each line of input."""
import sys
import threading
import time

from dbos import DBOS

at_once, steps, database = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
DBOS(config={"name": "bench", "system_database_url": f"sqlite:///{database}", "log_level": "ERROR"})


@DBOS.step()
def nothing(number):
    return {"amount": 1250, "currency": "EUR", "ok": True, "number": number}


@DBOS.workflow()
def chain(count):
    for number in range(count):
        nothing(number)


DBOS.launch()
print("ready", flush=True)
for _ in sys.stdin:
    started = time.monotonic()
    threads = [threading.Thread(target=chain, args=(steps,)) for _ in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(at_once * steps / (time.monotonic() - started), flush=True)
DBOS.destroy()
