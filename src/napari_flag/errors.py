"""The one exception whose message is shown to the user as it is."""


class UserError(Exception):
    """A fault that the user can mend.

    The message is one sentence that says what failed, why, and what to do.
    The command line prints it to stderr and exits with 2; the docks show it as it is.
    """


class Doubtful(UserError):
    """What looks wrong, and is used where a person who knows better insists."""
