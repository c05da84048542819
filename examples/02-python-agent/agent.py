"""A smolagents agent: reads notes.txt, writes summary.txt. It knows nothing of the ring it runs in."""

from smolagents import OpenAIServerModel, ToolCallingAgent, tool


@tool
def read_text(path: str) -> str:
    """Reads a text file.

    Args:
        path: The file to read.
    """
    with open(path, encoding="utf-8") as file:
        return file.read()


@tool
def write_text(path: str, text: str) -> str:
    """Writes a text file.

    Args:
        path: The file to write.
        text: What to write into it.
    """
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return f"wrote {path}"


# Where the model is and what it is paid with stands in OPENAI_BASE_URL and OPENAI_API_KEY, as anywhere.
model = OpenAIServerModel(model_id="stand-in")
agent = ToolCallingAgent(tools=[read_text, write_text], model=model, max_steps=5, verbosity_level=1)
print("answer:", agent.run("Read notes.txt and write a summary of it to summary.txt."))
