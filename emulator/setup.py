"""Names the packages: this folder is the package `emulator`, so no search finds it. The rest is in pyproject.toml."""

from setuptools import find_packages, setup

# With its name setup.py itself is left out of the package.
setup(packages=["emulator", *(f"emulator.{name}" for name in find_packages())], script_name="setup.py")
