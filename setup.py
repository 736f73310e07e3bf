"""Packaging. The folders of this repository are imported as `glus.<folder>`, by the links in src/glus.

The sam2 package installs a top-level `training` of its own, so none of ours may be a bare name: only src/ is on the
path. Versions are ranges here; requirements/ pins what CI ran.
"""

from pathlib import Path

from setuptools import find_namespace_packages, setup


def requirements(name: str) -> list[str]:
    """Requirements of requirements/NAME.in, without the comments. sam2 is not among them: see no_deps.in."""
    lines = Path(f"requirements/{name}.in").read_text(encoding="utf-8").splitlines()
    return [kept for line in lines if (kept := line.split("#")[0].strip())]


setup(
    name="glus",
    version="0.1.0",
    description="Training system for GLUS: referring video object segmentation with a multimodal LLM",
    long_description=Path("README.md").read_text(encoding="utf-8") if Path("README.md").exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_namespace_packages("src", include=["glus", "glus.*"]),
    package_dir={"": "src"},
    package_data={
        "": ["py.typed"],
        "glus.evaluation.pages": ["*.jinja"],
        "glus.evaluation.results": ["published_results.json"],
        "glus.configs": ["**/*.yaml"],
        "glus.slurm": ["*.sbatch", "*.sh"],
    },
    install_requires=requirements("run"),
    entry_points={"console_scripts": ["glus=glus.launch.cli:main"]},
)
