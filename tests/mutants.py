"""Damaged files for tests of readers: seeded, so that a failure names the mutant that causes it."""

import copy
import json

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
    """JSON text of a value after one edit: a field of another kind, gone, added or there twice."""
    value = copy.deepcopy(value)
    holder, key = _place(value, rng)
    kind = int(rng.integers(8))
    if kind == 0:
        del holder[key]
        return json.dumps(value)
    if kind == 1 and isinstance(holder, dict):
        holder[f"{key}_more"] = 1
        return json.dumps(value)
    strange = STRANGE[int(rng.integers(len(STRANGE)))]
    if kind == 2 and isinstance(holder, dict):
        text = json.dumps({**holder, MARK: 0})
        twice = text.replace(f'"{MARK}": 0', f"{json.dumps(str(key))}: {strange}")
        return json.dumps(value).replace(json.dumps(holder), twice, 1)
    holder[key] = MARK
    return json.dumps(value).replace(f'"{MARK}"', strange, 1)


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
