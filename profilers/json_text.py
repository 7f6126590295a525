"""JSON text to values that can be written again; what json alone would let through is refused.

That is NaN and Infinity, numbers beyond a float, halves of surrogate pairs, keys that are there
twice, and nesting on which another reader would choke. Damaged and hostile files hold all of these.
"""

from __future__ import annotations

import json
import math
from typing import Any, Dict, List, Tuple

MOST_NESTED = 100  # levels of JSON; ours have ten
MOST_DIGITS = 300  # of a whole number, so that it is one as a float


def parse_json(text: str) -> Any:
    """The value of JSON text that can be written again: numbers that a float holds, text that is
    Unicode, nesting that no reader chokes on.

    Raises:
        ValueError: it is not JSON, or holds something else.
    """
    try:
        value = json.loads(
            text,
            parse_constant=_refused,
            parse_float=_finite,
            parse_int=_whole_number,
            object_pairs_hook=_once,
        )
    except RecursionError:
        raise ValueError(f"nested deeper than {MOST_NESTED}") from None
    if text.count("[") + text.count("{") > MOST_NESTED and _depth(value) > MOST_NESTED:
        raise ValueError(f"nested deeper than {MOST_NESTED}")
    if "\\u" in text:
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # halves of surrogate pairs
    return value


def _once(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
    """The object of some keys and values; of a key that appears twice nobody knows what counts."""
    value = dict(pairs)
    if len(value) < len(pairs):
        left = dict(pairs)
        twice = next(key for key, _ in pairs if left.pop(key, pairs) is pairs)
        raise ValueError(f"the key {twice[:40]!r} appears twice")
    return value


def _refused(text: str) -> Any:
    raise ValueError(f"{text} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"the number {text[:20]} is too large")
    return value


def _whole_number(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"the number {text[:20]}... is too large")
    return int(text)


def _depth(value: Any) -> int:
    """How deep a value is nested."""
    level, depth = [value], 0
    while level:
        depth += 1
        level = [
            part
            for holder in level
            if isinstance(holder, (dict, list))
            for part in (holder.values() if isinstance(holder, dict) else holder)
        ]
    return depth
