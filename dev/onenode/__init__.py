"""A real one-node Kubernetes, built from Go modules, for development and tests.

`layout` says where everything is, `build` makes the binaries, `certificates` the keys, `namespaces` the room in which the
daemons run, `control_plane` and `node` say how each daemon is started, `process` starts and ends it, and `cluster` puts
these in order. `oci` and `images` make images without a registry.
"""
