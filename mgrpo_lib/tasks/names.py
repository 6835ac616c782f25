"""Did-you-mean for names of sets, settings and arms."""

import difflib


def nearest(name: str, valid: list[str]) -> str:
    """Write ``did you mean 'x'?``, or the list of what is valid."""
    known = {one.lower(): one for one in valid}  # MATH-500 is nearer to math500 than to anything else
    close = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.5)
    return f"did you mean {known[close[0]]!r}?" if close else f"valid: {', '.join(valid)}"
