"""The network interface by which this machine reaches the others of a run.

gloo takes that of the machine's own name, which on many systems is the loopback's: processes of
several machines would then look for each other at home.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import suppress

from progtrain.hardware.place import Place

_NAME = "GLOO_SOCKET_IFNAME"
_ADDRESS_OF = 0x8915  # SIOCGIFADDR of Linux
_LONGEST = 15  # letters of an interface's name


def choose(place: Place) -> None:
    """Tell gloo the interface, where there are several machines and nobody has told it."""
    if place.world > place.local_world and not os.environ.get(_NAME):
        for found in towards(os.environ["MASTER_ADDR"]):
            os.environ[_NAME] = found


def towards(address: str) -> Iterator[str]:
    """The interface on the way to `address`, if it is known and leads out of this machine."""
    with suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
        route.connect((address, 9))  # a datagram socket: nothing is sent
        own = route.getsockname()[0]
        if not own.startswith("127."):
            yield from (name for _, name in socket.if_nameindex() if _address(route, name) == own)


def _address(route: socket.socket, name: str) -> str:
    if sys.platform != "linux":
        return ""
    from fcntl import ioctl

    try:
        told = ioctl(route.fileno(), _ADDRESS_OF, struct.pack("256s", name.encode()[:_LONGEST]))
    except OSError:  # it has no address
        return ""
    return socket.inet_ntoa(told[20:24])
