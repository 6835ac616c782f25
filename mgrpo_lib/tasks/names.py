"""Suggest a valid name for a misspelt one."""

import difflib


def nearest(name: str, valid: list[str]) -> str:
    """Return ``did you mean 'x'?``, or the list of valid names if none is close."""
    known = {one.lower(): one for one in valid}  # by letters alone: MATH-500 is closest to math500
    close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    return f"did you mean {known[close[0]]!r}?" if close else f"valid: {', '.join(valid)}"
