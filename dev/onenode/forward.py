"""Forwards ports of the host's loopback into a network namespace.

forward.py NAMESPACE PORT:HOST:PORT... listens on 127.0.0.1 where it is started, then moves into the namespace, from where it
connects to HOST:PORT for each connection it accepts.
"""

import asyncio
import ctypes
import os
import socket
import sys

CLONE_NEWNET = 0x40000000


def listener(port):
    """A listening socket; it stays in the namespace in which it is made."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", port))
    listening.listen(256)
    return listening


def enter(namespace):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(os.open(namespace, os.O_RDONLY), CLONE_NEWNET):
        sys.exit(f"cannot enter {namespace}: {os.strerror(ctypes.get_errno())}")


async def pump(reader, writer):
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except OSError:
        writer.close()


def forwarder(host, port):
    async def forward(reader, writer):
        try:
            far_reader, far_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
        writer.close()
        far_writer.close()

    return forward


async def main(namespace, specifications):
    forwards = [specification.split(":") for specification in specifications]
    listeners = [listener(int(port)) for port, _, _ in forwards]
    enter(namespace)
    servers = [await asyncio.start_server(forwarder(host, int(port)), sock=listening)
               for listening, (_, host, port) in zip(listeners, forwards)]
    await asyncio.gather(*(server.serve_forever() for server in servers))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2:]))
