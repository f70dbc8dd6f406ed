"""The one error a user is meant to read."""


class UserError(Exception):
    """Something the user can put right.

    The message is one sentence, in plain words, that says what failed, why, and what to do.
    The command line prints it to stderr and exits with 2; the dock shows it as it is.
    """
