"""A D-Bus client that reads the stream's pipe: lines, figures, signals, cancelling, leaving. The engine has one place and no queue."""

import asyncio
import json
import os

from dbus_fast import Message, Variant
from dbus_fast.aio import MessageBus

NAME, ROOT, ENGINE, JOB = "org.hearth.Hearth1", "/org/hearth/Hearth1", "org.hearth.Engine1", "org.hearth.Job1"


class Failure(Exception):
    pass


async def connect():
    return await MessageBus(negotiate_unix_fd=True).connect()


async def call(bus, path, interface, member, signature="", body=()):
    reply = await bus.call(Message(NAME, path, interface, member, signature=signature, body=list(body)))
    if reply.message_type.name == "ERROR":
        raise Failure(reply.error_name, *reply.body)
    return reply


async def start(bus, tokens, member="Generate", text="hello"):
    options = {"max_tokens": Variant("u", tokens), "ignore_eos": Variant("b", True)}
    reply = await call(bus, ROOT, ENGINE, member, "sa{sv}", [text, options])
    job, index = reply.body
    return job, os.fdopen(reply.unix_fds[index], buffering=1)


async def start_when_free(bus, tokens):
    while True:
        try:
            return await start(bus, tokens)
        except Failure as failure:
            assert failure.args[0] == "org.hearth.Error.Busy", failure


async def state(bus, job):
    reply = await call(bus, job, "org.freedesktop.DBus.Properties", "Get", "ss", [JOB, "State"])
    return reply.body[0].value


async def main():
    bus = await connect()
    seen = asyncio.Queue()
    await bus.call(
        Message("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "AddMatch", signature="s", body=[f"sender='{NAME}'"])
    )
    bus.add_message_handler(lambda m: seen.put_nowait((m.member, m.path, m.body)) if m.message_type.name == "SIGNAL" else None)

    # A whole answer, to the end of the pipe.
    job, stream = await start(bus, 5)
    lines = [json.loads(line) for line in await asyncio.to_thread(stream.readlines)]
    assert lines[-1]["done"] and lines[-1]["reason"] == "length" and lines[-1]["decode"]["tokens"] == 5, lines
    assert "".join(line["text"] for line in lines[:-1])
    while True:
        member, path, body = await asyncio.wait_for(seen.get(), 120)
        if member == "Finished":
            assert path == job and body[0]["generated"].value == 5, (path, body)
            break
    assert await state(bus, job) == "done"

    # A chat in JSON.
    job, stream = await start(bus, 3, "Chat", json.dumps({"messages": [{"role": "user", "content": "hello"}]}))
    assert json.loads((await asyncio.to_thread(stream.readlines))[-1])["decode"]["tokens"] == 3

    # One place, no queue: the second is told to come again.
    job, stream = await start_when_free(bus, 400)
    await asyncio.to_thread(stream.readline)
    try:
        await start(bus, 1)
        raise AssertionError("a second job was taken")
    except Failure as failure:
        assert failure.args[0] == "org.hearth.Error.Busy", failure

    # Cancelling ends the pipe with a last line that says so.
    await call(bus, job, JOB, "Cancel")
    last = json.loads((await asyncio.to_thread(stream.readlines))[-1])
    assert last["done"] and last["error"]["name"] == "org.hearth.Error.Cancelled", last

    # Closing the pipe frees the place.
    job, stream = await start_when_free(bus, 400)
    await asyncio.to_thread(stream.readline)
    stream.close()

    # So does leaving the bus while somebody else holds the pipe open.
    other = await connect()
    job, stream = await start_when_free(other, 400)
    await asyncio.to_thread(stream.readline)
    other.disconnect()
    last = await start_when_free(bus, 1)
    await asyncio.to_thread(last[1].readlines)

    cookie = (await call(bus, ROOT, "org.hearth.Governor1", "HoldMode", "ss", ["eco", "test"])).body[0]
    await call(bus, ROOT, "org.hearth.Governor1", "ReleaseMode", "u", [cookie])
    await call(bus, ROOT, "org.hearth.Governor1", "HoldMode", "ss", ["quiet", "test"])


asyncio.run(main())
