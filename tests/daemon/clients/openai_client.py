"""The openai package over the Unix socket: list, chat, stream, forms, errors. Arguments: SOCKET MODEL."""

import asyncio
import json
import sys

import httpx2
import openai

socket, model = sys.argv[1:]
client = openai.OpenAI(
    base_url="http://localhost/v1", api_key="none", http_client=httpx2.Client(transport=httpx2.HTTPTransport(uds=socket))
)
messages = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "hello"}]},
]
extra = {"ignore_eos": True}

assert [m.id for m in client.models.list()] == [model]
assert client.models.retrieve(model).owned_by == "hearth"

whole = client.chat.completions.create(model=model, messages=messages, max_tokens=5, seed=1, logprobs=True, top_logprobs=2, extra_body=extra)
assert whole.choices[0].finish_reason == "length" and whole.usage.completion_tokens == 5, whole
assert len(whole.choices[0].logprobs.content) == 5 and len(whole.choices[0].logprobs.content[0].top_logprobs) == 2, whole

stream = client.chat.completions.create(
    model=model, messages=messages, max_tokens=5, seed=1, stream=True, stream_options={"include_usage": True}, extra_body=extra
)
chunks = list(stream)
assert chunks[0].choices[0].delta.role == "assistant" and chunks[-1].usage.completion_tokens == 5, chunks
assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content

# As Home Assistant's set-up asks: a tool without properties, three tokens.
tool = {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}}
client.chat.completions.create(model=model, messages=messages, tools=[tool], max_tokens=3)

# Held to a schema, and to a call.
lamp = {
    "type": "object",
    "properties": {"on": {"type": "boolean"}, "level": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["on", "level"],
    "additionalProperties": False,
}
form = {"type": "json_schema", "json_schema": {"name": "lamp", "strict": True, "schema": lamp}}
held = client.chat.completions.create(model=model, messages=messages, max_tokens=900, response_format=form)
assert set(json.loads(held.choices[0].message.content)) == {"on", "level"} and held.choices[0].finish_reason == "stop", held
set_lamp = {"type": "function", "function": {"name": "set_lamp", "parameters": lamp}}
choice = {"type": "function", "function": {"name": "set_lamp"}}
called = client.chat.completions.create(model=model, messages=messages, max_tokens=900, tools=[tool, set_lamp], tool_choice=choice)
function = called.choices[0].message.tool_calls[0].function
assert function.name == "set_lamp" and set(json.loads(function.arguments)) == {"on", "level"}, called
assert called.choices[0].finish_reason == "tool_calls", called


async def at_once():
    transport = httpx2.AsyncHTTPTransport(uds=socket)
    asking = openai.AsyncOpenAI(base_url="http://localhost/v1", api_key="none", http_client=httpx2.AsyncClient(transport=transport))
    asked = [asking.chat.completions.create(model=model, messages=messages, max_tokens=5, extra_body=extra) for _ in range(3)]
    assert [answer.usage.completion_tokens for answer in await asyncio.gather(*asked)] == [5, 5, 5]


asyncio.run(at_once())

text = client.completions.create(model=model, prompt="hello", max_tokens=3, extra_body=extra)
assert text.usage.completion_tokens == 3, text

try:
    client.chat.completions.create(model=model, messages=messages, n=2)
    raise AssertionError("n = 2 was taken")
except openai.BadRequestError as error:
    assert error.param == "n", error
try:
    client.models.retrieve("nope")
    raise AssertionError("a model that is not there was found")
except openai.NotFoundError:
    pass

# Leaving a stream early must not disturb the next request.
with client.chat.completions.create(model=model, messages=messages, max_tokens=200, stream=True, extra_body=extra) as stream:
    next(iter(stream))
assert client.chat.completions.create(model=model, messages=messages, max_tokens=2, extra_body=extra).usage.completion_tokens == 2
