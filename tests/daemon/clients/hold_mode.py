"""Holds the mode that the first line on stdin names, looks at what is told, and at the end of stdin leaves the bus without releasing it."""

import asyncio
import sys

from dbus_fast import Message
from dbus_fast.aio import MessageBus

NAME, ROOT, GOVERNOR = "org.hearth.Hearth1", "/org/hearth/Hearth1", "org.hearth.Governor1"
mode = sys.stdin.readline().strip()


async def main():
    bus = await MessageBus().connect()

    async def call(interface, member, signature, body):
        reply = await bus.call(Message(NAME, ROOT, interface, member, signature=signature, body=body))
        assert reply.message_type.name == "METHOD_RETURN", (member, reply.error_name, reply.body)
        return reply.body

    async def get(name):
        return (await call("org.freedesktop.DBus.Properties", "Get", "ss", [GOVERNOR, name]))[0].value

    changed = asyncio.Queue()
    rule = f"sender='{NAME}',member='PropertiesChanged'"
    await bus.call(Message("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "AddMatch", signature="s", body=[rule]))
    bus.add_message_handler(lambda m: changed.put_nowait(m.body) if m.member == "PropertiesChanged" else None)

    (cookie,) = await call(GOVERNOR, "HoldMode", "ss", [mode, "a test"])
    assert cookie > 0 and await get("Mode") == mode
    (hold,) = await get("ActiveHolds")
    assert (hold["mode"].value, hold["reason"].value) == (mode, "a test"), hold
    while True:
        interface, properties, _ = await asyncio.wait_for(changed.get(), 120)
        if interface == GOVERNOR and "Mode" in properties:
            assert properties["Mode"].value == mode, properties
            break
    headroom = (await call(GOVERNOR, "Headroom", "u", [30]))[0]
    assert isinstance(headroom, float)
    await asyncio.to_thread(sys.stdin.read)


asyncio.run(main())
