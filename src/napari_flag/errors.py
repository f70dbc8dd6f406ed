"""The one exception whose message is shown to the user as it is, and how a person insists all the same."""

from typing import Final

COMPARE_ANYWAY: Final = "“Compare anyway” of the Compare page"
PREDICT_ANYWAY: Final = "“Predict anyway” in step 3"


class UserError(Exception):
    """A fault that the user can mend.

    The message is one sentence that says what failed, why, and what to do.
    The command line prints it to stderr and exits with 2; the docks show it as it is.
    """


class Doubtful(UserError):
    """What looks wrong, and is used where a person who knows better insists."""


def insist(button: str) -> str:
    """Return how a person insists: by `button` of the window, on the command line or in Python."""
    return f"insist: {button} (--force on the command line, force=True in Python)"
