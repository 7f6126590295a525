"""Where folders of this repository go in an installed package; all else is in setup.cfg."""

from setuptools import find_packages, setup

# At the top of the repository, inside the package when installed: hwnas/settings/shipped.py.
TOP = ("profilers", "latency_tables", "examples")
inner = [name for name in find_packages() if name.split(".")[0] in TOP]
setup(
    packages=[
        *find_packages(include=["hwnas", "hwnas.*"]),
        *(f"hwnas._top.{name}" for name in {*TOP, *inner}),
    ],
    package_dir={f"hwnas._top.{name}": name for name in TOP},
)
