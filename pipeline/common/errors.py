"""The two ways in which a command ends early: the user has to change something, or a run failed."""


class UserError(Exception):
    """Something only the user can mend. Shown as one message, without a traceback; exit code 2."""


class RunFailed(Exception):  # noqa: N818 - named for what it says
    """A run that had to end early; what was finished is kept. Shown as one message; exit code 1."""
