"""Damaged files for tests of readers: seeded, so that a failure names the mutant that causes it."""

import copy
import json

from profilers.schema import canonical_json, sha256_text

# Values that a field was never meant to hold. Text is put into the file as it stands.
STRANGE = [
    *("null", "true", "false", "0", "-1", "1.5", "-0.0", "1e308", "-1e308", "1e-320", "NaN"),
    *("Infinity", "-Infinity", '""', '"x"', '"\\u0000"', '"\\ud800"', "[]", "{}", "[[]]", "[null]"),
    *('{"a": 1}', "9" * 30, "1" + "0" * 400, "9" * 5000, '"' + "y" * 5000 + '"'),
    *("[" * 200 + "]" * 200, "[" * 900 + "]" * 900, "[" * 5000, '{"a":' * 900 + "1" + "}" * 900),
]
MARK = "@@mutant@@"


def damaged(data, rng):
    """Bytes of a file after one accident of storage or transport."""
    out = bytearray(data)
    at = int(rng.integers(len(out)))
    size = int(rng.integers(1, 40))
    match int(rng.integers(6)):
        case 0:
            out[at] ^= 1 << int(rng.integers(8))
        case 1:
            del out[at:]
        case 2:
            del out[at : at + size]
        case 3:
            out[at:at] = rng.bytes(size)
        case 4:
            out[at:at] = out[at : at + size]
        case 5:
            out[at : at + size] = bytes(len(out[at : at + size]))
    return bytes(out)


def edited(value, rng):
    """JSON text of a value after one edit: a field of another kind, gone, added, renamed or there
    twice, one in another unit, two that changed places, a list that is longer or out of order.
    """
    value = copy.deepcopy(value)
    holder, key = _place(value, rng)
    match int(rng.integers(12)):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[f"{key}_more"] = 1
        case 2 if isinstance(holder, dict):
            holder[f"{key}\u0301"] = holder.pop(key)
        case 3 if _is_number(holder[key]):
            holder[key] *= float(rng.choice([-1, 1e-3, 0.01, 0.5, 2, 100, 1000]))
        case 4:
            other, place = _place(value, rng)
            if _apart(holder[key], other[place]):
                holder[key], other[place] = other[place], holder[key]
        case 5 if isinstance(holder[key], list):
            holder[key] = holder[key][::-1] if rng.random() < 0.5 else holder[key] * 50
        case 6 if isinstance(holder, dict):
            return _put(value, holder, key, _strange(rng), twice=True)
        case _:
            return _put(value, holder, key, _strange(rng))
    return json.dumps(value)


def signed(text):
    """A mutant with the hash that its content now has; itself where that cannot be."""
    try:
        content = json.loads(text)
        content.pop("sha256", None)
        content["sha256"] = sha256_text(canonical_json(content))
        return canonical_json(content)
    except (ValueError, RecursionError, AttributeError, OverflowError):
        return text


def _strange(rng):
    return STRANGE[int(rng.integers(len(STRANGE)))]


def _put(value, holder, key, strange, twice=False):
    """JSON text of a value in which a field is text that may be no JSON, also beside the field."""
    if twice:
        text = json.dumps({**holder, MARK: 0})
        text = text.replace(f'"{MARK}": 0', f"{json.dumps(str(key))}: {strange}")
        return json.dumps(value).replace(json.dumps(holder), text, 1)
    holder[key] = MARK
    return json.dumps(value).replace(f'"{MARK}"', strange, 1)


def _is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _apart(one, other):
    """Whether neither of two values holds the other."""
    texts = [json.dumps(part) for part in (one, other)]
    return texts[0] not in texts[1] and texts[1] not in texts[0]


def _place(value, rng):
    """A container somewhere in a value, and a key or index of it."""
    holder = value
    while True:
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        key = keys[int(rng.integers(len(keys)))]
        deeper = isinstance(holder[key], (dict, list)) and len(holder[key])
        if not deeper or rng.random() < 0.2:
            return holder, key
        holder = holder[key]
