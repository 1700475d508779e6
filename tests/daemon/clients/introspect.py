"""Prints the introspection of the root, the model and one job."""

import asyncio
import os

from dbus_fast import Message, Variant
from dbus_fast.aio import MessageBus

NAME, ROOT = "org.hearth.Hearth1", "/org/hearth/Hearth1"


async def main():
    bus = await MessageBus(negotiate_unix_fd=True).connect()

    async def call(path, interface, member, signature="", body=()):
        reply = await bus.call(Message(NAME, path, interface, member, signature=signature, body=list(body)))
        assert reply.message_type.name == "METHOD_RETURN", reply.body
        return reply

    reply = await call(ROOT, "org.hearth.Engine1", "Generate", "sa{sv}", ["hi", {"max_tokens": Variant("u", 1)}])
    os.close(reply.unix_fds[0])
    for path in (ROOT, ROOT + "/models/tiny", reply.body[0]):
        print((await call(path, "org.freedesktop.DBus.Introspectable", "Introspect")).body[0])


asyncio.run(main())
