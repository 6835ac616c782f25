"""Suggest a valid name for a misspelt one."""

import difflib

LISTED = 25  # names at most


def nearest(name: str, valid: list[str]) -> str:
    """Return ``did you mean 'x'?``, or the list of valid names if none is close; of a long list, those with most in common."""
    known = {one.lower(): one for one in valid}  # by letters alone: MATH-500 is closest to math500
    close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    if close:
        return f"did you mean {known[close[0]]!r}?"
    if len(valid) <= LISTED:
        return f"valid: {', '.join(valid)}"
    alike = [known[one] for one in difflib.get_close_matches(name.lower(), known, n=5, cutoff=0)]
    return f"of {len(valid)} names the most alike are {', '.join(alike)}"
