"""The page of `glus page`, by gradio: a video and expressions in; overlay, contact sheet, masks and counts out.

The only file that imports gradio. Nothing on the page comes from other machines: gradio's scripts come with its
package, the fonts are the system's, and its analytics are off (launch/quiet.py, too).
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from threading import Event
from typing import Any

import gradio as gr

from glus.common.atomic import disk_fault
from glus.common.errors import EvaluationError, UserError
from glus.common.terminal import one_line
from glus.evaluation.segment.predictor import GlusPredictor
from glus.evaluation.segment.segment_folder import Outcome
from glus.evaluation.segment.segment_results import write_results

_COLUMNS = ["", "expression", "key frame", "frames with a mask", "empty frames", "unanswered frames"]
_PROGRESS = gr.Progress()
#: Visitors that wait; the next one gets a message.
_WAITING = 16
#: Seconds: how often old files are looked for, and how old they get.
_FILES_KEPT = (600, 86_400)
_FONT = ["system-ui", "Helvetica", "Arial", "sans-serif"]
_MONO = ["ui-monospace", "Consolas", "monospace"]


@dataclass(frozen=True)
class PageLimits:
    """What one request may ask for: expressions at once, and the size of an uploaded video in megabytes."""

    expressions: int
    upload_mb: int


class SegmentPage:
    """The page's functions and its layout. One request at a time is computed; others wait in a queue."""

    def __init__(self, predictor: GlusPredictor, limits: PageLimits, scratch: Path, videos: Path | None = None) -> None:
        """`scratch`: a folder for results, within GRADIO_TEMP_DIR; `videos`: whose files and folders may be chosen."""
        self._predictor, self.limits, self._scratch = predictor, limits, scratch
        self._videos = {} if videos is None else {place.name: place for place in _listed(videos)}
        self._stops: dict[str, Event] = {}

    def segment(
        self,
        uploaded: str | None,
        chosen: str | None,
        lines: str,
        key_frame: float | None,
        request: gr.Request,
        progress: Any = _PROGRESS,
    ) -> tuple[str, str, str, list[list[Any]]]:
        """Return the paths of overlay, contact sheet and archive, and the rows of counts. Raises gr.Error."""
        stop = self._stops[str(request.session_hash)] = Event()

        def report(doing: str, done: int, total: int) -> None:
            if stop.is_set():
                raise EvaluationError("stopped: nothing of this video is kept")
            progress((done, total), desc=doing, unit="frames")

        with self._shown_errors(uploaded):
            video, texts = self._video(uploaded, chosen), self._texts(lines)
            folder = self._scratch / secrets.token_hex(16)
            results = write_results(self._predictor, video, texts, int(key_frame or 0), folder, report)
        for note in results.notes:
            gr.Warning(escape(one_line(note)), duration=None)
        rows = [_row(number, outcome, results.frames) for number, outcome in enumerate(results.outcomes)]
        return str(results.overlay), str(results.sheet), str(results.archive), rows

    def stop(self, request: gr.Request) -> None:
        """End what this visitor began, before its next frame."""
        if stop := self._stops.get(str(request.session_hash)):
            stop.set()

    def leave(self, request: gr.Request) -> None:
        """Forget a visitor who closed the page."""
        self.stop(request)
        self._stops.pop(str(request.session_hash), None)

    @contextmanager
    def _shown_errors(self, uploaded: str | None) -> Iterator[None]:
        """What the visitor can fix, as a message of the page; anything else is a bug, and its traceback is printed."""
        try:
            yield
        except (UserError, OSError) as error:
            fault = str(error) if isinstance(error, UserError) else disk_fault(error)
            if not fault:
                raise
            text = one_line(fault.replace(uploaded, Path(uploaded).name) if uploaded else fault)
            raise gr.Error(escape(text), duration=None, print_exception=False) from error

    def _video(self, uploaded: str | None, chosen: str | None) -> Path:
        if uploaded and chosen:
            raise EvaluationError(f"an upload and {chosen} are given: remove one of them")
        if uploaded:
            return Path(uploaded)
        if chosen:
            return self._videos[chosen]
        raise EvaluationError("no video: upload one" + (" or choose one of the list" if self._videos else ""))

    def _texts(self, lines: str) -> list[str]:
        texts = [line.strip() for line in lines.splitlines() if line.strip()]
        if not texts:
            raise EvaluationError("no expression: say in words what is to be segmented, one expression a line")
        if len(texts) > self.limits.expressions:
            raise EvaluationError(
                f"{len(texts)} expressions, but this page takes {self.limits.expressions} at once: give fewer, or "
                "start the page with a higher --most-expressions"
            )
        return texts

    def layout(self) -> gr.Blocks:
        """The page, not yet served."""
        limits, title = self.limits, escape(f"{self._predictor.title}: {self._predictor.device}")
        with gr.Blocks(title="GLUS", analytics_enabled=False, delete_cache=_FILES_KEPT) as page:
            gr.HTML(f"<h1>GLUS</h1><p>Masks of a video for expressions of your own. Model: {title}</p>")
            with gr.Row():
                with gr.Column(scale=2, min_width=320):
                    # Not gr.Video: it calls a video that FFmpeg reads and the browser does not an error.
                    upload = gr.File(label=f"Video file (at most {limits.upload_mb} MB)", height=160)
                    names = sorted(self._videos)
                    choice = gr.Dropdown(names, value=None, label="Or a video of the server", visible=bool(names))
                    lines = gr.Textbox(
                        label=f"Expressions, one a line (at most {limits.expressions})",
                        placeholder="the dog on the left\nthe ball",
                        lines=4,
                        max_lines=12,
                    )
                    key_frame = gr.Number(0, label="Key frame: where to begin, counted from 0", precision=0, minimum=0)
                    with gr.Row():
                        start = gr.Button("Segment", variant="primary")
                        stop = gr.Button("Stop", variant="stop")
                with gr.Column(scale=3, min_width=480):
                    overlay = gr.Video(label="Overlay", interactive=False, buttons=["download"])
                    counts = gr.Dataframe(headers=_COLUMNS, label="Counts", interactive=False, wrap=True, buttons=[])
                    sheet = gr.Image(
                        show_label=False,  # it would cover the first expression
                        type="filepath",
                        interactive=False,
                        buttons=["download", "fullscreen"],
                    )
                    archive = gr.File(label="Masks (zip)", interactive=False)
            results = [overlay, sheet, archive, counts]
            begun = start.click(
                self.segment,
                [upload, choice, lines, key_frame],
                results,
                concurrency_limit=1,
                show_progress_on=overlay,
                api_visibility="private",
            )
            stop.click(self.stop, None, None, cancels=[begun], queue=False, api_visibility="private")
            page.unload(self.leave)
        page.queue(max_size=_WAITING)
        return page


@contextmanager
def served(page: SegmentPage, host: str, port: int) -> Iterator[str]:
    """Serve the page until the block ends; yields its address. Raises OSError where the port is in use."""
    for name in ("NO_PROXY", "no_proxy"):  # gradio asks its own server once whether it answers
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), host, "localhost", "127.0.0.1")))
    layout = page.layout()
    try:
        _, address, _ = layout.launch(
            server_name=f"[{host}]" if ":" in host else host,
            server_port=port,
            prevent_thread_lock=True,
            quiet=True,
            show_error=False,
            share=False,
            inbrowser=False,
            footer_links=[],
            run_history=False,
            allowed_paths=[],
            max_file_size=f"{page.limits.upload_mb}mb",
            enable_monitoring=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            num_workers=0,
            root_path="",
            theme=gr.themes.Default(font=_FONT, font_mono=_MONO),
        )
        yield address
    finally:
        layout.close(verbose=False)


def _listed(folder: Path) -> list[Path]:
    """Video files and folders of frames, by name; what they hold is checked when one is chosen."""
    return sorted(place for place in folder.iterdir() if not place.name.startswith("."))


def _row(number: int, outcome: Outcome, frames: int) -> list[Any]:
    found = outcome.frames_with_mask
    return [number, outcome.text, outcome.key_frame, found, frames - found, outcome.frames_without_seg]
