"""Filter patterns of CloudWatch Logs ("Filter pattern syntax for metric filters, …" in its user guide)."""

from __future__ import annotations

import ast
import functools
import json
import math
import operator
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from pydantic import Field, TypeAdapter

Test = Callable[[Any], bool]
#: What gives the event of a line that matches, otherwise None, and the selectors or fields that the pattern names.
Pattern = tuple[Callable[[str], Any], Sequence[str]]

_TEXT, _ESCAPED = r'"(?:[^"\\]|\\.)*"', re.compile(r'\\(["\\])')
_SELECTOR = r"\$(?=\.)(?:\.?\['[^']+'\]|\.[\w-]+|\[\d+\]|\.\*|\[\*\])+"
_STEP = re.compile(r"\.?\['([^']+)'\]|\.([\w-]+)|\[(\d+)\]|(\.\*|\[\*\])", re.ASCII)
_STATE = r"(?P<state>IS\s+(?:NULL|TRUE|FALSE)|NOT\s+EXISTS)\b"
_COMPARED = rf"(?P<sign>[!<>]=|[=<>])\s*(?:(?P<text>{_TEXT})|%(?P<regex>[^%]*)%|(?P<word>[\w.*+-]+))"
_OF_JSON, _OF_FIELDS = (
    re.compile(rf"\s*(?:(?P<join>&&|\|\||[()])|(?P<subject>{subject})\s*(?:{state}|{_COMPARED}))\s*", re.ASCII)
    for subject, state in ((_SELECTOR, _STATE), (r"[\w-]+", "(?P<state>(?!))"))
)
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_ORDER = {"<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge}
_CLASS = r"\[\^?(?:\\.|[\w:#=@/;, .^$?{}|*+]|-(?!-))+\]"
_ATOM = rf"\\x[0-9A-Fa-f]{{2}}|\\[dDsSwW]|\\[][^$?{{}}|*+.:_#=@/;,\\-]|{_CLASS}|[\w:#=@/;, .-]"
_REPEATED = re.compile(rf"({_ATOM})([*+?]|\{{(?:\d+,?\d*|,\d+)\}})?", re.ASCII)
_REGEX = re.compile(rf"(?:[$^|]|{_REPEATED.pattern})+", re.ASCII)
_CLASSES = {"d": "[0-9]", "D": "[^0-9]", "s": r"[\t-\r ]", "S": r"[^\t-\r ]", "w": "[0-9A-Za-z_]", "W": "[^0-9A-Za-z_]"}
_WORDS = re.compile(r'\[([^][]*)\]|"([^"]*)"|(\S+)')  # within brackets no further one: time in proportion to the line


@functools.lru_cache(maxsize=256)
def compile_pattern(pattern: str) -> Pattern:
    """Read a pattern; a ValueError says what is wrong with it."""
    pattern = pattern.strip()
    kind, inner = pattern[:1] + pattern[1:][-1:], pattern[1:-1].strip()
    if kind not in ("{}", "[]"):
        return _matcher(str, _regex(pattern[1:-1]) if kind == "%%" else _terms(pattern)), ()
    _limit(expressions(pattern), 2, "regular expressions")
    if kind == "{}":
        selectors, test = _conditions(inner, _OF_JSON)
        wild = [len(re.findall(r"\.\*|\[\*\]", selector)) for selector in selectors]
        _limit(max(wild), 1, "wildcards in a property selector")
        _limit(sum(wild), 3, "wildcards in property selectors")
        return _matcher(_parse, test), selectors
    names, tests = [], []
    for text in re.findall(rf"((?:{_TEXT}|%[^%]*%|[^,])*),", f"{inner},"):
        named = [text.strip()]
        if not re.fullmatch(r"[\w-]*|\.\.\.", named[0], re.ASCII):
            named, test = _conditions(text, _OF_FIELDS)
            tests.append(test)
        names.append(f"${named[0]}")
        if len(set(named)) > 1 or (named[0] and names.count(names[-1]) > 1):
            raise ValueError(f"Each field has one name of its own, not {text}.")
    match = _matcher(functools.partial(_split, names), lambda fields: all(test(fields) for test in tests))
    return match, [name for name in names if name.strip("$.")]


def expressions(pattern: str) -> int:
    """Count the regular expressions of a pattern that can be read."""
    return sum(map(bool, re.findall(rf"{_TEXT}|(%[^%]*%)", pattern)))


def find(event: Any, selector: str) -> list[Any]:
    """Find all that a selector of JSON (`$.a[*].b`) leads to, or the field of a name (`$ip`)."""
    found = [event]
    for quoted, name, index, wild in _STEP.findall(selector) or [(selector, "", "", "")]:
        if index or wild == "[*]":
            part = slice(int(index), int(index) + 1) if index else slice(None)
            found = [each for one in found if isinstance(one, list) for each in one[part]]
        else:
            key, held = quoted or name, [one for one in found if isinstance(one, dict)]
            found = [each for one in held for at, each in one.items() if wild or at == key]
    return found


def number(found: str | float) -> float:
    """Read an integer, a decimal or scientific notation; NaN if it is none."""
    return found if not isinstance(found, str) else float(found) if _NUMBER.fullmatch(found) else math.nan


def _matcher(read: Callable[[str], Any], test: Test) -> Callable[[str], Any]:
    return lambda line: event if (event := read(line)) is not None and test(event) else None


def _limit(count: int, most: int, of: str) -> None:
    if count > most:
        raise ValueError(f"A pattern has at most {most} {of}, not {count}.")


def _terms(pattern: str) -> Test:
    terms = []
    for sign, term in re.findall(rf"([?-]?)({_TEXT}|\S+)", pattern):
        text = _ESCAPED.sub(r"\1", term[1:-1]) if re.fullmatch(_TEXT, term) else term
        if text == term and (wrong := re.search(r"\W", term)):
            raise ValueError(f"Invalid character(s) in term '{wrong[0]}'")
        terms.append((sign, text if text.strip() else ""))  # " " matches everything
    if all(sign == "?" for sign, _ in terms):
        return lambda line: not terms or any(text in line for _, text in terms)
    return lambda line: all((text in line) != (sign == "-") for sign, text in terms if sign != "?")


def _conditions(text: str, form: re.Pattern[str]) -> tuple[list[str], Test]:
    """Read conditions, && before || and in parentheses, as Python's own parser reads `and` and `or`."""
    parts = list(form.finditer(text))
    joined = [{"&&": "and", "||": "or"}.get(part[0].strip(), part["join"]) or str(at) for at, part in enumerate(parts)]
    try:
        if "".join(part[0] for part in parts) != text:
            raise SyntaxError
        tests = {at: _condition(part) for at, part in enumerate(parts) if part["subject"]}
        return [part["subject"] for part in parts if part["subject"]], _joined(ast.parse(" ".join(joined)), tests)
    except (SyntaxError, RecursionError, MemoryError):
        raise ValueError(f"Invalid character(s) in term '{text}': conditions are joined by && and ||.") from None


def _joined(node: Any, tests: dict[int, Test]) -> Test:
    match node:
        case ast.Module(body=[ast.Expr(value=inner)]):
            return _joined(inner, tests)
        case ast.Constant(value=int(at)):
            return tests[at]
        case ast.BoolOp(op=op, values=values):
            whole, parts = any if isinstance(op, ast.Or) else all, [_joined(each, tests) for each in values]
            return lambda event: whole(part(event) for part in parts)
    raise SyntaxError


def _condition(part: re.Match[str]) -> Test:
    """Make the test of an event: one of the values that are found has to fulfil the condition."""
    subject, state, sign, word = part.group("subject", "state", "sign", "word")
    if state:
        wanted_state = {"NULL": None, "TRUE": True, "FALSE": False}.get(state.split()[1], ...)
        return lambda event: any(each is wanted_state for each in (find(event, subject) or [...]))
    wanted, selector = number(word or ""), subject if subject[0] == "$" else f"${subject}"
    if math.isnan(wanted) and (sign in _ORDER or re.search(r"[^\w.*]", word or "")):
        raise ValueError(f"Invalid character(s) in term '{part[0].strip()}'")
    text = word or _ESCAPED.sub(r"\1", (part["text"] or "")[1:-1])
    equal = _text(text) if part["regex"] is None else _regex(part["regex"])

    def test(found: Any) -> bool:
        held = math.nan if isinstance(found, str) and subject[0] == "$" else number(found)  # a text of JSON is none
        if order := _ORDER.get(sign):
            return bool(order(held, wanted))
        return (held == wanted or equal(found if isinstance(found, str) else json.dumps(found))) == (sign == "=")

    return lambda event: any(type(each) in (str, int, float) and test(each) for each in find(event, selector))


def _text(given: str) -> Test:
    """Compare with a text: `*` at its beginning or end stands for anything."""
    core, open_start, open_end = given.strip("*"), given.startswith("*"), given.endswith("*")
    if not open_start and not open_end:
        return given.__eq__
    return lambda text: core in text and (open_start or text.startswith(core)) and (open_end or text.endswith(core))


def _regex(text: str) -> Test:
    """Compile for Rust's engine, whose time is in proportion to the line; its own classes are of Unicode."""
    if not _REGEX.fullmatch(text):
        raise ValueError(f"%{text}%: expressions have letters, digits, :_#=@/;,- and ^$?[]{{}}|\\*+. only.")
    repeats = [repeat for _, repeat in _REPEATED.findall(text)]
    _limit(sum(max([1, *map(int, re.findall(r"\d+", each))]) for each in repeats), 100, "characters with repeats")
    plain = _REPEATED.sub(lambda part: part[1] + (part[2] or "").replace("{,", "{0,"), text)
    rust = re.sub(r"\\(.)", lambda escape: _CLASSES.get(escape[1], escape[0]), plain)
    try:
        return TypeAdapter(Annotated[str, Field(pattern=f"(?s){rust}")]).validator.isinstance_python
    except Exception as wrong:  # pydantic's SchemaError has no narrower kind
        raise ValueError(f"%{text}%: {str(wrong).splitlines()[-1].strip()}") from None


def _parse(line: str) -> dict[str, Any] | None:
    try:
        event = json.loads(line, parse_constant=int)  # which refuses NaN and Infinity
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


def _split(names: Sequence[str], line: str) -> dict[str, str] | None:
    """Give the fields between spaces, in brackets or quotes, by name or number; without `...` the last has the rest."""
    words = [(found.start(), found[found.lastindex or 0]) for found in _WORDS.finditer(line)]
    if "$..." in names:
        here = names.index("$...")
        names = [*names[:here], *["$"] * (len(words) - len(names) + 1), *names[here + 1 :]]
    if len(words) > len(names):
        start, _ = words[len(names) - 1]
        words[len(names) - 1 :] = [(start, line[start:].rstrip())]
    keys = [f"${at}" if name == "$" else name for at, name in enumerate(names, start=1)]
    return dict(zip(keys, (word for _, word in words), strict=True)) if len(words) == len(keys) else None
