"""What can go wrong, in the user's words: one line that names field, expected, found."""

from __future__ import annotations


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
        line = f"{self.field}: expected {self.expected}, found {self.found}"
        return " ".join(line.split())


class HopelessError(InputError):
    """The user's mistake that only the work showed: no other attempt, and no other row, mends it."""


class RunLockedError(InputError):
    """Another live process writes this run directory."""


class ResumeRefusedError(InputError):
    """The run on disk was made with another configuration, other models or other inputs."""


class ProviderError(LenspipeError):
    """ONNX Runtime did not give the execution provider that was asked for."""


class MemberError(LenspipeError):
    """A member of an ensemble raised on a batch."""


class StoppedError(LenspipeError):
    """What the run needs is not to be had (its storage, its workers); the same command resumes."""


class CorruptRunError(LenspipeError):
    """Files of the run directory contradict their commit records."""


class FailureLimitError(LenspipeError):
    """The run finished, but more sources failed than the survey file allows."""

    exit_status = 3
