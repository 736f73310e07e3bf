"""The dynamic part of the metadata: dependencies, from requirements/run.in and page.in. All else: pyproject.toml."""

from pathlib import Path

from setuptools import setup


def requirements(name: str) -> list[str]:
    """Return the requirements of requirements/NAME.in, without comments. sam2 is not among them: see no_deps.in."""
    lines = Path(f"requirements/{name}.in").read_text(encoding="utf-8").splitlines()
    return [kept for line in lines if (kept := line.split("#")[0].strip())]


setup(install_requires=requirements("run"), extras_require={"page": requirements("page")})
