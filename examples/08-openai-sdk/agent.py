"""A program for the OpenAI library as its documentation has it. It knows nothing of the ring it runs in, nor of its key."""

import os
import sys

from openai import OpenAI, RateLimitError

client = OpenAI()
questions = int(sys.argv[1]) if len(sys.argv) > 1 else 1
try:
    for _ in range(questions):
        stream = client.chat.completions.create(
            model="gpt-4o-mini",
            max_tokens=200,
            messages=[{"role": "user", "content": "What is a ring?"}],
            stream=True,
        )
        print("answer:", "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices))
except RateLimitError as error:
    print("no more:", error.code)
print("key:", os.environ["OPENAI_API_KEY"])
