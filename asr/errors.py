"""The one kind of exception that a user can cause."""


class UserError(Exception):
    """Something the user can put right: a missing file, a wrong key, a damaged recording.

    Its text is one line that names the file or key and says what to do. The command line
    prints it on stderr and ends with exit status 1; nobody sees a traceback.
    """
