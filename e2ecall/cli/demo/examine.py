"""Plays the demonstration's calls and examines them: from processes to findings and files.

Puts the pieces together: `stage` plays the call and a control, `picture`, `quality` and
`blindness` examine them, `sheet` and the media library show the result. Loads the media library,
so `command` imports it only when it is asked to run.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import anyio

from e2ecall.cli.demo.blindness import check
from e2ecall.cli.demo.picture import compare_pictures, pictures, sounds
from e2ecall.cli.demo.progress import Progress
from e2ecall.cli.demo.quality import compare_sound
from e2ecall.cli.demo.recording import mono, recorded_pictures, recorded_sound
from e2ecall.cli.demo.report import Findings
from e2ecall.cli.demo.sheet import Shot, draw
from e2ecall.cli.demo.stage import (
    CALLEE,
    CALLER_CAPTION,
    CALLER_SEED,
    TEXT,
    CallRecord,
    Wish,
    play,
)
from e2ecall.errors import MediaError
from e2ecall.media.files import write_movie, write_png
from e2ecall.media.voice import RATE

CONTROL_SECONDS: Final = 2.0
UNRELATED_SEED: Final = 65_537


def perform(wish: Wish, output: Path, progress: Progress) -> Findings:
    """Play the call and its control, examine both, write film and contact sheet.

    Raises:
        MediaError: a file cannot be sent (nothing was started), or nothing came to be compared.
        ChildError: a process failed; its log is in ``output / "logs"``.
        CheckError: the search could not see what it has to search.
    """
    # What cannot be sent is refused before anything starts.
    pictures(wish.video, CALLER_SEED, CALLER_CAPTION)
    sounds(wish.audio, CALLER_SEED)
    shutil.rmtree(output / "logs", ignore_errors=True)
    with _stage(output, "call") as folder, _stage(output, "control") as control_folder:
        record = _play(folder, wish, progress)
        progress.note("placing a short second call with SFrame taken out, to test the search")
        progress.quiet()
        control_wish = Wish(CONTROL_SECONDS, wish.audio, wish.video, without_sframe=True)
        control = _play(control_folder, control_wish, progress)
        progress.note("searching everything that the relay saw for known plaintext")
        seen = check(record.capture, (record.caller, record.callee))
        seen_in_control = check(control.capture, (control.caller, control.callee))
        progress.note("comparing what the callee decoded with what was sent")
        caller, callee = record.caller, record.callee
        video, shots = compare_pictures(
            pictures(wish.video, CALLER_SEED, CALLER_CAPTION),
            caller.sent_pictures,
            record.callee_folder,
            callee.received_pictures,
        )
        sent, unrelated = sounds(wish.audio, CALLER_SEED), sounds(None, UNRELATED_SEED)
        length = round((wish.seconds + 1.0) * RATE)
        audio = compare_sound(
            sent.samples(0, length),
            mono(recorded_sound(record.callee_folder)),
            unrelated.samples(0, length),
        )
        findings = Findings(
            caller_sas=caller.sas,
            callee_sas=callee.sas,
            setup_ms=_milliseconds(callee.accepted_at, callee.received_pictures[0]),
            ring_ms=_milliseconds(caller.called_at, caller.ringing_at),
            text_arrived=TEXT in callee.texts,
            video=video,
            audio=audio,
            relay_packets=seen.packets,
            relay_bytes=seen.bytes,
            plaintext_hits=seen.plaintext_hits,
            control_hits=seen_in_control.hits["frames"],
        )
        progress.note("writing what the callee saw and heard")
        _write_film(record, output / "callee.mp4")
        _write_sheet(findings, callee.sas_digits, shots, output / "contact-sheet.png")
    return findings


@contextmanager
def _stage(output: Path, name: str) -> Iterator[Path]:
    """Yield a folder for keys and recordings that vanishes; after a failure the logs stay."""
    kept = output / "logs" / name
    with tempfile.TemporaryDirectory(prefix=f"e2ecall-demo-{name}-") as folder:
        try:
            yield Path(folder)
        except BaseException:
            for log in (p for p in Path(folder).rglob("*.log") if p.stat().st_size):
                kept.mkdir(parents=True, exist_ok=True)
                shutil.copy(log, kept)
            raise


def _play(folder: Path, wish: Wish, progress: Progress) -> CallRecord:
    with progress.call(wish.seconds):
        return anyio.run(partial(play, folder, wish, progress.event))


def _write_film(record: CallRecord, path: Path) -> None:
    times = record.callee.received_pictures
    sound_at = record.callee.received_sound_at
    start = min(times[0], times[0] if sound_at is None else sound_at)
    write_movie(
        path,
        zip(
            (time - start for time in times), recorded_pictures(record.callee_folder), strict=False
        ),
        recorded_sound(record.callee_folder),
        (sound_at or start) - start,
    )


def _write_sheet(findings: Findings, digits: str, shots: list[Shot], path: Path) -> None:
    subtitle = (
        f"e2ecall demo   {findings.video.frames} pictures   "
        f"mean {findings.video.psnr_mean_db:.1f} dB   spoken code {digits}"
    )
    write_png(path, draw(f"what {CALLEE} saw", subtitle, shots))


def _milliseconds(start: float | None, end: float | None) -> float:
    if start is None or end is None:
        raise MediaError("the call did not come far enough to be timed")
    return 1000 * (end - start)
