"""How this package reads a series."""

import numpy as np

from hwnas.images.network_input import fit_length


def read(path, given):
    """FILE is a .npy file of one series (channels, time) or (time,), or a .csv file of it: a line
    for each step, a number for each channel.
    """
    try:
        values = np.load(path, allow_pickle=False) if path.endswith(".npy") else read_csv(path)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    series = values[None] if values.ndim == 1 else values
    channels, length = given["channels"], given["source_size"]
    fits = series.ndim == 2 and len(series) == channels and series.size
    if not fits or series.dtype.kind not in "fiu" or not np.isfinite(series).all():
        raise ValueError(
            f"{path} holds {values.dtype} {values.shape}; expected {channels} channels of finite "
            "numbers, (channels, time) in .npy, a line for each step in .csv"
        )
    if given["fit_length"]:
        series = fit_length(series, length)
    if series.shape[1] != length:
        raise ValueError(f"{path} holds {series.shape[1]} steps; expected {length}: cut or pad it")
    return series.astype(np.float32)


def read_csv(path):
    """(channels, time) of a file of numbers."""
    with open(path, encoding="utf-8") as file:
        rows = [line.split(",") for line in file if line.strip()]
    return np.array(rows, dtype=np.float64).T
