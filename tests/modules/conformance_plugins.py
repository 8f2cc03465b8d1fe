"""Plugins that tests register; in a module, as workers and nannies import them."""

from distributed.diagnostics.plugin import NannyPlugin, WorkerPlugin


class Mark(WorkerPlugin):
    """Leaves a mark on each worker."""

    name = "mark"

    def __init__(self, value):
        self.value = value

    def setup(self, worker):
        if self.value is None:
            raise ValueError("no value for the mark")
        worker.mark = self.value

    def teardown(self, worker):
        worker.mark = "gone"


class Environment(NannyPlugin):
    name = "environment"

    def setup(self, nanny):
        nanny.env["MAINSTAY_MARK"] = "of the nanny"
