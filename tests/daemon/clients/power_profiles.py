"""Stands in for power-profiles-daemon: each line on stdin is the active profile from then on."""

import asyncio
import sys

from dbus_fast.aio import MessageBus
from dbus_fast.constants import PropertyAccess
from dbus_fast.service import ServiceInterface, dbus_property

NAME = "org.freedesktop.UPower.PowerProfiles"


class PowerProfiles(ServiceInterface):
    def __init__(self):
        super().__init__(NAME)
        self.active = "balanced"

    @dbus_property(access=PropertyAccess.READ)
    def ActiveProfile(self) -> "s":  # noqa: F821
        return self.active


async def main():
    bus = await MessageBus().connect()
    profiles = PowerProfiles()
    bus.export("/org/freedesktop/UPower/PowerProfiles", profiles)
    await bus.request_name(NAME)
    while line := await asyncio.to_thread(sys.stdin.readline):
        profiles.active = line.strip()
        profiles.emit_properties_changed({"ActiveProfile": profiles.active})


asyncio.run(main())
