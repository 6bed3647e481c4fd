"""The one kind of exception that a user can cause."""


class UserError(Exception):
    """An error that the user can fix: a missing file, a wrong key, a damaged recording.

    Its message is one line that names the file or key and says what to do. The command line prints
    it to stderr and exits with status 1, without a traceback.
    """
