"""hwnas: train one elastic network once, ship the best network for each device."""

__version__ = "0.1.0"
