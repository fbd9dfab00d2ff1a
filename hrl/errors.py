"""Errors that the user can fix."""


class UserError(Exception):
    """An error that the user can fix. Its message states the cause and the remedy; command lines print it and exit with
    code 2."""


class Diverged(UserError):
    """Raised if parameters of a run are NaN or infinite: further training cannot repair them."""
