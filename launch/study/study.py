"""`glus study STUDY.yaml`: what each part of a model brings, by trainings that differ in one part."""

from glus.common.terminal import plain
from glus.evaluation.pages.study_page import StudyPage, findings, write_study
from glus.launch.stages import StageFailed, Stages, with_terminate_as_interrupt
from glus.launch.study.study_config import StudyConfig
from glus.launch.study.study_report import study_page
from glus.launch.study.study_results import read_results
from glus.launch.study.study_stages import check_runs, count_stages, study_stages


def study(config: StudyConfig) -> int:
    """Train and evaluate what is not done yet, then write the report of what MLflow has.

    Returns 0, or the exit code of the command that failed (it printed why); the same command goes on from there.
    Raises LaunchError, DataError, TrainingError or EvaluationError, each with one clear message; settings of every arm
    are checked before anything runs, and what was made with other settings is refused.
    """
    runs = check_runs(config)
    if not config.report_only:
        stages = Stages(config.out, count_stages(config, runs), keep=True)
        with_terminate_as_interrupt()
        try:
            for stage in study_stages(config, runs):
                stages.run(stage)
        except StageFailed as failed:
            return failed.report("glus study")
    page = study_page(config, read_results(config))
    _print(page)
    for place in write_study(page, config.out):
        print(plain(f"written: {place}"))
    return 0


def _print(page: StudyPage) -> None:
    for note in page.notes:
        print(plain(note))
    for arm, lines in findings(page):
        print(plain(f"{arm}: {' '.join(lines)}"))
