"""What runs on a device: standard library, numpy and one inference engine. Knows files, clocks and
meters, no search space.
"""

__version__ = "0.1.0.dev0"
