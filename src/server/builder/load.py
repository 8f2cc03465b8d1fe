"""Makes modules of the files of this folder, in the worker's process, the first time that they arrive there."""

import sys
import types


def load(package, files):
    """Gives `serve`; `files` are [(name, source)], each after those that it imports."""
    if package not in sys.modules:
        for name, source in files:
            module = types.ModuleType(f"{package}.{name}")
            module.__package__ = package
            sys.modules[module.__name__] = module
            exec(compile(source, f"<mainstay {name}.py>", "exec"), module.__dict__)
        # Last, so that files that could not be loaded are tried again and say why.
        sys.modules[package] = types.ModuleType(package)
    return sys.modules[f"{package}.serve"].serve
