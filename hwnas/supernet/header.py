"""What a supernet file says of itself: its metadata, read without its tensors and without torch.

A safetensors file starts with the length of its JSON header (8 bytes, little endian); metadata is
the header's `__metadata__` (https://huggingface.co/docs/safetensors, "Format").
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from profilers.errors import FileFormatError
from profilers.json_text import parse_json

MAX_HEADER = 100 << 20  # bytes; the limit of the format


def read_header(path: Path) -> dict[str, Any]:
    """The metadata that hwnas wrote into a safetensors file; empty if it wrote none.

    Raises:
        FileFormatError: the file is missing, truncated or no safetensors file.
    """
    try:
        with open(path, "rb") as handle:
            size = int.from_bytes(handle.read(8), "little")
            if not 0 < size <= MAX_HEADER:
                raise ValueError(f"its header would be {size} bytes")
            header = parse_json(handle.read(size).decode("utf-8"))
            found = parse_json(header.get("__metadata__", {}).get("hwnas", "{}"))
    except FileNotFoundError:
        raise FileFormatError(f"{path} does not exist") from None
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise FileFormatError(
            f"{path} cannot be read as a supernet ({error}); it is truncated or of another kind"
        ) from error
    return found if isinstance(found, dict) else {}
