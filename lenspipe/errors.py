"""What can go wrong, in the user's words: one line that names field, expected, found."""

from __future__ import annotations

from lenspipe.redaction import redact

_LONGEST = 2000


def one_line(text: str) -> str:
    """Any text as one line that is safe to print: whatever came from a file may be in it, and
    credentials must not be."""
    line = " ".join(redact(text[: 4 * _LONGEST]).split())
    line = line if len(line) <= _LONGEST else f"{line[:_LONGEST]} …"
    return printable(line)


def printable(text: str) -> str:
    """Any text with escapes (`\\u001b`) for what would steer a terminal, turn the order of writing
    or cannot be encoded: all that Unicode calls not printable."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


class LenspipeError(Exception):
    """Base of every error that lenspipe raises on purpose; `exit_status` is the command's."""

    exit_status = 1


class InputError(LenspipeError):
    """The user's mistake: a field of a file or of the command line is not what it must be.

    field: where (`cuts.bright_enough`, `models/a.onnx: card`), expected: what would do,
    found: what is there.
    """

    exit_status = 2

    def __init__(self, field: str, expected: str, found: object) -> None:
        self.field = field
        self.expected = expected
        self.found = str(found)
        super().__init__(field, expected, self.found)

    def __str__(self) -> str:
        return one_line(f"{self.field}: expected {self.expected}, found {self.found}")


class HopelessError(InputError):
    """The user's mistake that no other attempt and no other row mends: it ends a run at once."""


class RunLockedError(InputError):
    """Another live process writes this run directory."""


class ResumeRefusedError(InputError):
    """The run on disk was made with another configuration, other models or other inputs."""


class PixelsChangedError(InputError):
    """Files of pixels came, went or were changed while a run scored them."""


class ProviderError(LenspipeError):
    """ONNX Runtime did not give the execution provider that was asked for."""


class NoDeviceError(InputError):
    """The cluster has no device for the provider that was asked for."""


class MemberError(LenspipeError):
    """A member of an ensemble raised on a batch."""


class StoppedError(LenspipeError):
    """What the run needs is not to be had (its storage, its workers); the same command resumes."""


class CorruptRunError(LenspipeError):
    """Files of the run directory contradict their commit records."""


class FailureLimitError(LenspipeError):
    """The run finished, but more sources failed than the survey file allows."""

    exit_status = 3
