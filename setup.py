"""What pyproject.toml cannot say: the packages of data hold no modules."""

from setuptools import setup
from setuptools.command.build_py import build_py

DATA = ("smpler.meta_data", "smpler.pretrained")


class BuildPy(build_py):
    """Leaves out Python files that a user put beside the shipped data."""

    def find_package_modules(self, package, package_dir):
        """Return (package, module, file) of each module of a package."""
        return [] if package in DATA else super().find_package_modules(package, package_dir)


setup(cmdclass={"build_py": BuildPy})
