"""The one error that speaks to the user."""


class InputError(ValueError):
    """Something the user gave is wrong: the message says what, where and how to mend it, in one or two lines.

    The command line prints it without a traceback and exits with status 2. `kind` names the fault of a file in a word
    or two, for those who count and sort faults.
    """

    def __init__(self, message: str = "", kind: str = ""):
        self.kind = kind
        # A DataLoader worker re-raises with its whole traceback as the message; only our own words are for the user.
        marker = "InputError: "
        self.message = message.rsplit(marker, 1)[-1].strip() if "Original Traceback" in message else message
        super().__init__(self.message)

    def __str__(self) -> str:
        # Not `args`, which fastai rewrites where a callback raises.
        return self.message
