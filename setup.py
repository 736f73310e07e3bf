"""Packaging. The folders of this repository are imported as `glus.<folder>`.

The sam2 package installs a top-level `training` of its own, so none of ours may be a bare name: the mapping
below is the one place that says so. Versions are ranges here; what CI ran is pinned in requirements/.
"""

from pathlib import Path

from setuptools import setup

FOLDERS = ["common", "data_pipeline", "model", "training", "evaluation", "launch"]
DATA_FOLDERS = {"configs": ["**/*.yaml"], "slurm": ["*.sbatch", "*.sh"]}


def requirements(name: str) -> list[str]:
    """Requirements of requirements/NAME.in, without the comments. sam2 is not among them: see no_deps.in."""
    lines = Path(f"requirements/{name}.in").read_text(encoding="utf-8").splitlines()
    return [kept for line in lines if (kept := line.split("#")[0].strip())]


def packages() -> dict[str, str]:
    """Package name -> folder, sub-packages included (every folder below with an __init__.py)."""
    found = {}
    for folder in FOLDERS:
        for init in sorted(Path(folder).rglob("__init__.py")):
            found["glus." + ".".join(init.parent.parts)] = init.parent.as_posix()
    return found | {f"glus.{folder}": folder for folder in DATA_FOLDERS if Path(folder).is_dir()}


setup(
    name="glus",
    version="0.1.0",
    description="Training system for GLUS: referring video object segmentation with a multimodal LLM",
    long_description=Path("README.md").read_text(encoding="utf-8") if Path("README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=list(packages()),
    package_dir=packages(),
    package_data={
        "glus.common": ["py.typed"],
        "glus.data_pipeline": ["py.typed"],
        "glus.model": ["py.typed"],
        "glus.training": ["py.typed"],
        "glus.evaluation": ["py.typed", "*.jinja", "published.json"],
        "glus.launch": ["py.typed"],
    }
    | {f"glus.{folder}": globs for folder, globs in DATA_FOLDERS.items()},
    install_requires=requirements("run"),
    entry_points={"console_scripts": ["glus=glus.launch.cli:main"]},
)
