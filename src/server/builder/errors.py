"""What people read when there is no graph."""

import difflib
import pickle
import traceback

from distributed.protocol.pickle import dumps

MESSAGE_CHARACTERS_MAX = 2_000
TRACEBACK_CHARACTERS_MAX = 16_000
# What the names of this folder's files start with in tracebacks.
OWN_FILES = "<mainstay "


class Refused(Exception):
    """A request that cannot be met, with the kind of reason; `__cause__` is what Python had to say."""

    def __init__(self, kind, message):
        super().__init__(message)
        self.kind = kind


def describe(error, filename):
    """An error as a person who wrote the source wants to read it, and as a Client can raise it."""
    cause = error.__cause__ if isinstance(error, Refused) and error.__cause__ is not None else error
    report = traceback.TracebackException.from_exception(cause)
    line = drop_own_frames(report, filename)
    if isinstance(error, Refused):
        kind, message = error.kind, str(error)
    elif isinstance(error, SyntaxError) and error.filename == filename:
        kind, message, line = "SyntaxError", f"{error.msg} (line {error.lineno})", error.lineno
    else:
        kind, message = "Raised", describe_error(error)
    is_told = isinstance(error, Refused) and cause is error
    text = None if is_told else shorten("".join(report.format()), TRACEBACK_CHARACTERS_MAX)
    try:
        exception = dumps(error if not isinstance(error, Refused) else RuntimeError(message))
    except Exception:
        exception = pickle.dumps(RuntimeError(message))
    return {
        "kind": kind,
        "message": shorten(message, MESSAGE_CHARACTERS_MAX),
        "traceback": text,
        "line": line,
        "exception": exception,
    }


def drop_own_frames(report, filename):
    """Leaves the frames from the source's first on; gives the source's last line."""
    line = None
    while report is not None:
        frames = list(report.stack)
        own = [position for position, frame in enumerate(frames) if frame.filename.startswith(OWN_FILES)]
        source = [position for position, frame in enumerate(frames) if frame.filename == filename]
        start = source[0] if source else own[-1] + 1 if own else 0
        report.stack = traceback.StackSummary.from_list(frames[start:])
        if source and line is None:
            line = frames[source[-1]].lineno
        report = report.__cause__ or (None if report.__suppress_context__ else report.__context__)
    return line


def describe_error(error):
    return "".join(traceback.format_exception_only(type(error), error)).strip()


def close_to(name, names):
    """A hint at what was probably meant."""
    close = difflib.get_close_matches(name, [str(other) for other in names], n=1)
    return f" (did you mean `{close[0]}`?)" if close else ""


def describe_type(value):
    """A short name that a person knows: DataFrame, Array, int."""
    return type(value).__name__


def shorten(text, characters_max):
    if len(text) <= characters_max:
        return text
    half = characters_max // 2 - 10
    return f"{text[:half]}\n ... \n{text[-half:]}"
