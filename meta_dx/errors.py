"""The one error class of the library: a code for machines and one clear sentence for people."""

from __future__ import annotations


class MetaDxError(Exception):
    """Something the user can mend: wrong use, wrong input, or a machine that is full or read-only.

    The command line prints the message on one line of stderr and exits with status 2. Faults of the library
    itself are ordinary exceptions and exit with status 1.

    Parameters
    ----------
    code : str
        Stable snake_case name of the fault, for tests and for programs (``"unknown_key"``).
    message : str
        One sentence that says what is wrong, where, and what to do. Never holds an original patient identifier.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


#: Name of an option, whether its value will do, and what is allowed.
OptionChecks = list[tuple[str, bool, str]]


def refuse_values(options: object, checks: OptionChecks) -> None:
    """Refuse the first option whose value will not do.

    Raises
    ------
    MetaDxError
        ``bad_value``, with the option, its value and what is allowed.
    """
    for name, fits, allowed in checks:
        if not fits:
            raise MetaDxError("bad_value", f"{name} is {getattr(options, name)!r}: allowed is {allowed}.")
