"""Numbers, exact, and the units beside them."""

import re
from fractions import Fraction

# fmt: off
_UNIT_NAMES = (
    "mm,millimeter,millimetre cm,centimeter,centimetre m,meter,metre km,kilometer,kilometre in,inch,inches ft,foot,feet yd,yard mi,mile "
    "mg,milligram g,gram,gramme kg,kilogram ton,tonne lb,pound oz,ounce ml,mL,milliliter,millilitre l,L,liter,litre gal,gallon s,sec,second "
    "ms,millisecond min,minute h,hr,hour day week month year decade century,centuries Hz,hertz kHz MHz N,newton J,joule kN kJ cal,calorie kcal eV keV MeV "
    "W,watt kW,kilowatt MW Pa,pascal kPa atm bar K,kelvin mol,mole V,volt A,amp,ampere F,farad C,coulomb T,tesla Wb,weber AA,angstrom Omega,ohm "
    "rad,radian degree,deg percent dollar,usd,USD cent gbp euro yen rupee mph kph,kmh am,AM pm,PM Msun Lsun Rsun erg G,gauss mM pc,parsec ly amu "
    "unit acre hectare nm,nanometer micrometer,micron mJ mA mV kV mW GHz dB ppm rpm dyne lumen bit byte MB GB quart pint cup teaspoon tablespoon"
)
UNITS = {name: entry.split(",")[0] for entry in _UNIT_NAMES.split() for name in entry.split(",")}
_LETTERS = "".join(name for name in UNITS if len(name) == 1)
# said beside a unit; "in" is an inch only where it comes first
_IDLE = {"total", "left", "remaining", "long", "tall", "old", "high", "wide", "deep", "away", "altogether", "of", "the", "a", "an", "each", "every", "in"}
_COUNTED = {"way", "point", "path", "time", "person", "people", "men", "women", "children", "fish", "sheep", "item", "step"}  # and most plurals
_MULTIPLIERS = {"hundred": 10**2, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3, "squared": 2, "cubed": 3}
# plurals that change a number
_CHANGING = re.compile(
    r"\w*(?:halves|thirds|quarters|ths|illions|illiards|hundreds|thousands|dozens|scores|lakhs|crores|myriads|minus|plus|less|gross|times|repeats"
    r"|tens|ones|twos|threes|fours|fives|sixes|sevens|eights|nines|squares|cubes|roots|powers|factorials|inverses|reciprocals|negatives|modulus)"
)
_UNIT_RULES = [(re.compile(pattern), replacement) for pattern, replacement in [
    (r"\\text ?\{((?:[^{}]|\{[^{}]*\})*)\}", r" \1 "), (r"\\frac ?\{([^{}]*)\} ?\{([^{}]*)\}", r"\1/\2"), (r"\\?%|\bper ?cent\b", " percent "), (r"\^ ?\\circ", " degree "),
    (r"\\cdot|\\times|[ .()*]", " "), (r"\\mu *", " micro"), (r"_\{? ?\\odot ?\}?", "sun"), (r"\\(?=Omega|AA)", ""), (r"\^ ?\{? ?(-?\d) ?\}?", r"^\1"),
    (r"\bof +(?:(?:the|an?|each|every) +)?(?!hundred|thousand|[mbtr]+illion|dozen|half)[a-z]+(?=\W*$)", " "),
]]
# fmt: on


def unit(text: str, letters: str = "") -> tuple[int, dict[str, int]] | None:
    """Read what stands beside a number: its multiplier and its units with their powers; None if a word may change the number.

    Args:
        text: ``\\text{ cm}^2``, ``km/h``, ``million dollars``, ``apples``.
        letters: these may stand alone for a unit, as all do in ``\\text``.
    """
    if not text:
        return 1, {}
    if (alone := re.match(r" ?([a-zA-Z])(?![a-zA-Z_])", text)) and alone[1] not in letters:
        return None
    for pattern, replacement in _UNIT_RULES:
        text = pattern.sub(replacement, text)
    words = re.findall(r"[a-zA-Z]+|\^-?\d|[^ ]", text)
    factor, found, last, sign, power = 1, {}, None, 1, 1
    for i, word in enumerate(words):
        if word[0] == "^" and len(word) > 1 and last or word in ("squared", "cubed") and last:
            found[last] *= _POWERS.get(word) or int(word[1:])
        elif word in ("/", "per"):
            sign = -1
        elif word in _POWERS and not word.endswith("ed"):
            power = _POWERS[word]
        elif word in _MULTIPLIERS and not found:
            factor *= _MULTIPLIERS[word]
        elif (name := _unit_name(word)) and not (word == "in" and i):
            last, found[name], sign, power = name, sign * power, 1, 1
        elif word in _COUNTED or (re.fullmatch(r"[a-z]{3,}s", word) and not _CHANGING.fullmatch(word)):
            found[word.removesuffix("s")] = 1
        elif word not in _IDLE:
            return None
    found.pop("unit", None)
    return factor, found


def _unit_name(word: str) -> str | None:
    """Return a unit's short name; of symbols small and large letters differ."""
    if word.startswith("micro") and word not in UNITS:
        return (name := _unit_name(word[5:])) and f"micro{name}"
    readings = [word, word.lower(), word.lower().removesuffix("s")] if len(word) > 2 else [word]
    return next((UNITS[reading] for reading in readings if reading in UNITS), None)


_DECIMAL = r"(?:(?:\d{1,3}(?:[, ]\d{3})+(?!\d)|\d+)(?:\.\d*)?|\.\d+)"
_SIGNED = rf"[+-]?{_DECIMAL}"
_POWER = r"10 ?\^ ?\{? ?(?P<e%d>[+-]?\d{1,4})(?!\d)(?: ?\})?"
_NUMBER = re.compile(
    rf"(?P<sign>[+-]?) ?(?:(?P<time>\d{{1,2}}:\d\d(?::\d\d)?)"
    rf"|(?:(?P<whole>\d+)\ ?)?\\frac ?\{{ ?(?P<n1>{_SIGNED}) ?\}} ?\{{ ?(?P<d1>{_SIGNED}) ?\}}"
    rf"|(?P<whole2>\d+)\ (?P<n2>\d+) ?/ ?(?P<d2>\d+)|(?P<n3>{_DECIMAL}) ?/ ?(?P<d3>{_SIGNED})|{_POWER % 1}"
    rf"|(?P<n4>{_DECIMAL})(?:\\overline\{{(?P<again>\d+)\}})?(?: ?(?:\\times|\\cdot|\*|x) ?{_POWER % 2}|[eE](?P<e3>[+-]?\d{{1,4}})(?!\d))?)",
    re.ASCII,
)
_LONG_FLOAT = re.compile(r"-?\d+\.\d{10,}", re.ASCII)  # a computed one, right up to rounding


def quantity(text: str, letters: str = _LETTERS) -> tuple[Fraction | str, dict[str, int]] | None:
    """Read a number and what stands beside it: its value (of a time of day its text), and its units; None: it is no number.

    Args:
        letters: these may stand alone for a unit.
    """
    found = _NUMBER.match(text)
    if found is None:
        return None
    rest = text[found.end() :]
    beside = unit(rest, letters if rest.startswith(" ") and found["n4"] else "")
    if beside is None:
        return None
    if found["time"]:
        return found["sign"] + found["time"].lstrip("0"), beside[1]
    numerator, denominator = (
        next((found[f"{x}{i}"] for i in range(1, 5 if x == "n" else 4) if found[f"{x}{i}"]), "1") for x in "nd"
    )
    if (below := _decimal(denominator)) == 0:
        return None
    value = int(found["whole"] or found["whole2"] or 0) + _decimal(numerator) / below
    if again := found["again"]:
        value += Fraction(int(again), (10 ** len(again) - 1) * 10 ** len(numerator.partition(".")[2]))
    value *= Fraction(10) ** int(found["e1"] or found["e2"] or found["e3"] or 0) * beside[0]
    return -value if found["sign"] == "-" else value, beside[1]


def _decimal(text: str) -> Fraction:
    return Fraction(re.sub("[, ]", "", text))


def compatible(a: dict[str, int], g: dict[str, int]) -> bool:
    """Return whether units agree; they may be left out, and a degree need not say of which scale."""
    return not a or not g or a == g or (a.keys() < g.keys() or g.keys() < a.keys()) and "degree" in a.keys() & g.keys()


def same_quantity(answer: str, gold: str) -> bool | None:
    """Compare two numbers with their units; None if one is no number."""
    if ", " in answer or ", " in gold:
        return None  # a list, not thousands
    if (a := quantity(answer)) is None or (g := quantity(gold)) is None:
        return None
    (x, units_a), (y, units_g) = a, g
    if units_a != units_g and quantity(gold, letters="ghlms") is None:
        return None  # a letter that may be a variable
    if not compatible(units_a, units_g):
        return False
    if isinstance(x, str) or isinstance(y, str):
        return x == y
    if any(_LONG_FLOAT.fullmatch(text) for text in (answer, gold)):
        return abs(x - y) <= abs(y) / 10**10
    percent = {"percent": 1}
    return (
        x == y
        or (units_a == percent and not units_g and x == 100 * y)
        or (units_g == percent and not units_a and y == 100 * x)
    )
