"""Energy of what runs: meters, their readings, and the windows they are counted in."""
