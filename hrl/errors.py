"""Errors that the user can fix."""


class UserError(Exception):
    """An error that the user can fix. Command lines print its one sentence and exit with code 2."""
