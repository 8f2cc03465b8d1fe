"""Has a Dask server read its certificates again when their files have changed: stock Dask reads them once, when it starts.

Runs in a stock worker or nanny for as long as that lives. New certificates go into the TLS contexts that it has, so
open comms go on as they are and the next ones take the new.
"""

import asyncio
import os
import ssl

PERIOD_SECONDS = 5


async def follow(dask_worker):
    """Looks at the files again and again. The name of the argument makes Dask fill in its worker or nanny."""
    security = dask_worker.security
    files = [security.tls_ca_file, security.tls_worker_cert, security.tls_worker_key]
    # Certificates may be given as text as well, which does not change. A second one to follow them is not needed.
    if any(not file or "\n" in file for file in files) or hasattr(dask_worker, "_mainstay_follows"):
        return
    dask_worker._mainstay_follows = True
    # When it was started tells nothing about when the files were read: they are read once more to begin with.
    seen = None
    while True:
        try:
            found = [os.stat(file).st_mtime_ns for file in files]
            if found != seen:
                for context in contexts(dask_worker):
                    context.load_verify_locations(files[0])
                    context.load_cert_chain(files[1], files[2])
                seen = found
        except (OSError, ssl.SSLError):
            # They are being replaced.
            pass
        await asyncio.sleep(PERIOD_SECONDS)


def contexts(server):
    """All that the server and the Client in it encrypt with."""
    client = getattr(server, "_client", None)
    arguments = [server.connection_args, *(listener.server_args for listener in server.listeners)]
    arguments += [client.connection_args] if client else []
    found = [argument.get(name) for argument in arguments for name in ("ssl_context", "ssl_options")]
    return [context for context in found if isinstance(context, ssl.SSLContext)]
