"""What the warehouse answers to what it does not do: ClickHouse's number and name of an error, and its HTTP status."""

from __future__ import annotations

NAMES = {
    36: "BAD_ARGUMENTS",
    48: "NOT_IMPLEMENTED",
    62: "SYNTAX_ERROR",
    73: "UNKNOWN_FORMAT",
    81: "UNKNOWN_DATABASE",
    115: "UNKNOWN_SETTING",
    164: "READONLY",
    194: "REQUIRED_PASSWORD",
    202: "TOO_MANY_SIMULTANEOUS_QUERIES",
    229: "QUERY_IS_TOO_LARGE",
    241: "MEMORY_LIMIT_EXCEEDED",
    372: "SESSION_NOT_FOUND",
    374: "INVALID_SESSION_TIMEOUT",
    396: "TOO_MANY_ROWS_OR_BYTES",
    452: "SETTING_CONSTRAINT_VIOLATION",
    497: "ACCESS_DENIED",
    511: "UNKNOWN_ROLE",
    516: "AUTHENTICATION_FAILED",
}
# ClickHouse's own choice, as far as it is not 500: a client decides by it whether to try again.
_STATUSES = {
    401: (194,),
    403: (192, 193, 497, 512, 516),
    400: (
        6,
        8,
        10,
        15,
        25,
        26,
        27,
        36,
        37,
        38,
        41,
        42,
        43,
        44,
        53,
        62,
        69,
        72,
        117,
        123,
        130,
        167,
        168,
        386,
        427,
        441,
        675,
        676,
    ),
    404: (46, 47, 50, 56, 60, 63, 73, 78, 81, 115, 152, 336, 511),
    408: (159,),
    411: (381,),
    413: (229,),
    501: (48,),
    503: (76, 202, 209, 439),
}
STATUS = {code: status for status, codes in _STATUSES.items() for code in codes}


class Refusal(Exception):
    """A request that is not done. `code`: ClickHouse's number; `str`: its whole text, with the number and the name."""

    def __init__(self, code: int, text: str, name: str = "") -> None:
        self.code = code
        self.status = STATUS.get(code, 500)
        super().__init__(f"Code: {code}. DB::Exception: {text}. ({name or NAMES[code]})")
