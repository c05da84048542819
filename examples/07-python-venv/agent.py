"""What Python agents do all day: packages of a venv, threads, an event loop, children, a database, files in HOME and /tmp."""

import asyncio
import concurrent.futures
import pathlib
import sqlite3
import subprocess
import sys
import tempfile

import pydantic  # from the venv


class Task(pydantic.BaseModel):
    number: int
    text: str


def child(number: int) -> Task:
    code = f"print('task {number} is done')"
    text = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return Task(number=number, text=text.strip())


async def ask() -> str:
    async def answer(reader, writer):
        writer.write(b"an answer over " + (await reader.readline()))
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"its own loopback\n")
    text = (await reader.readline()).decode().strip()
    server.close()
    return text


with concurrent.futures.ThreadPoolExecutor(4) as pool:
    tasks = list(pool.map(child, range(3)))
print(asyncio.run(ask()))
settings = pathlib.Path.home() / ".config" / "agent"
settings.mkdir(parents=True)
(settings / "seen.json").write_text(tasks[0].model_dump_json())
with tempfile.TemporaryDirectory() as folder:
    pathlib.Path(folder, "scratch").write_text("gone in a moment")
with sqlite3.connect("tasks.db") as database:
    database.execute("create table if not exists task (number integer, text text)")
    database.executemany("insert into task values (?, ?)", [(task.number, task.text) for task in tasks])
    count = database.execute("select count(distinct number) from task").fetchone()[0]
print(f"{count} tasks are in tasks.db")
