"""Runs sources: Python text, and functions of the worker's image."""

import importlib
import inspect
import linecache
import operator

from .errors import Refused, close_to, describe_type


def run_source(request, names, inputs):
    """Runs a Python source and takes the named variables."""
    filename, source = f"{request['name']}.py", request["source"]
    # Tracebacks show the lines, and so do `inspect.getsource` and what is built on it.
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    # As in a script: what is defined here is pickled by value, since no other process can import it.
    namespace = {"__name__": "__main__", "__file__": filename, "params": request.get("parameters") or {}, **inputs}
    try:
        exec(compile(source, filename, "exec", dont_inherit=True), namespace)
    except ImportError as error:
        raise import_failed(error) from error
    hidden = (inspect.ismodule, inspect.isroutine, inspect.isclass)
    values = {
        name: value
        for name, value in namespace.items()
        if name in names or not (name.startswith("_") or name == "params" or any(is_it(value) for is_it in hidden))
    }
    return take(names, values, "the source")


def call_entrypoint(request, names, inputs):
    """Imports a function of the worker's image, calls it, and takes the named results."""
    function = resolve(request["callable"])
    kwargs = {**(request.get("kwargs") or {}), **inputs}
    if request.get("parameters"):
        kwargs["params"] = request["parameters"]
    for name in kwargs:
        if name not in (request.get("kwargs") or {}) and not accepts(function, name):
            what = "`parameters`" if name == "params" else f"the input `{name}`"
            raise Refused("BadOption", f"`{request['callable']}` has no argument `{name}`, so {what} would be ignored")
    try:
        result = function(*(request.get("args") or ()), **kwargs)
    except ImportError as error:
        raise import_failed(error) from error
    if isinstance(result, dict) and (not names or set(names) & set(result)):
        return take(names or list(result), result, f"the result of `{request['callable']}`")
    if isinstance(result, (tuple, list)) and len(names) == len(result) and len(names) != 1:
        return dict(zip(names, result))
    if len(names) == 1:
        return {names[0]: result}
    raise Refused(
        "NameNotDefined",
        f"`{request['callable']}` returned {describe_type(result)}, and `collections` names {len(names)}: it should "
        "return a dict of name to collection, or as many collections as are named",
    )


def take(names, values, where):
    """The named values, or a message that helps to find the right name."""
    shown = ", ".join(sorted(str(name) for name in values)[:20]) or "nothing"
    if not names:
        raise Refused("NameNotDefined", f"`collections` names nothing to persist; {where} defines: {shown}")
    for name in names:
        if name not in values:
            hint = close_to(name, values)
            raise Refused("NameNotDefined", f"{where} does not define `{name}`{hint}; it defines: {shown}")
    return {name: values[name] for name in names}


def resolve(path):
    """The object that `module:name` means."""
    module_name, _, attribute = path.partition(":")
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise import_failed(error) from error
    try:
        function = operator.attrgetter(attribute)(module)
    except AttributeError:
        hint = close_to(attribute, dir(module))
        raise Refused("CallableNotFound", f"the module `{module_name}` has no `{attribute}`{hint}") from None
    if not callable(function):
        raise Refused("CallableNotFound", f"`{path}` is {describe_type(function)}, not a function")
    return function


def accepts(function, name):
    """Whether a function can be called with this keyword."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return True
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return takes_any or name in parameters


def import_failed(error):
    if isinstance(error, ModuleNotFoundError) and error.name:
        return Refused("ImportFailed", f"the worker image has no module `{error.name}`")
    return Refused("ImportFailed", f"an import failed on the worker: {error}")
