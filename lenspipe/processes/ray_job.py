"""Which job of a Ray cluster this process is the driver of."""

from __future__ import annotations

import json
import os

# Of Ray, for drivers that its job server starts; the member is the name by which it knows the job.
_VARIABLE = "RAY_JOB_CONFIG_JSON_ENV_VAR"
_MEMBER = "job_submission_id"


def own_job() -> str | None:
    """Its name (`lenspipe-demo-1a2b3c4d-1`), whoever submitted it; None where this is no job."""
    try:
        name = json.loads(os.environ[_VARIABLE])["metadata"][_MEMBER]
    except (KeyError, TypeError, ValueError):
        return None
    return name if isinstance(name, str) else None
