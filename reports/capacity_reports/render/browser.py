"""Prints a page as PDF with a browser of this machine, so that both have one source and one look."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from capacity.errors import CapacityError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
VARIABLE = "CHROME_PATH"
_LONGEST = 120  # seconds


def find_browser() -> str:
    """The program that prints: the environment's CHROME_PATH, or a Chromium on the path.

    Raises:
        CapacityError: there is none.
    """
    named = os.environ.get(VARIABLE)
    found = shutil.which(named) if named else next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        where = f"{VARIABLE}={named} is no program" if named else "no Chromium on this machine"
        raise CapacityError(
            f"PDF needs a browser to print it, and {where}: install Debian's package chromium, set "
            f"{VARIABLE}, or print the HTML page"
        )
    return found


def pdf(html: str) -> bytes:
    """The page, printed as PDF.

    Raises:
        CapacityError: there is no browser, or it fails.
    """
    program = find_browser()
    with tempfile.TemporaryDirectory(prefix="capacity-report-") as folder:
        page, out = Path(folder) / "report.html", Path(folder) / "report.pdf"
        page.write_text(html, encoding="utf-8")
        # Without a sandbox, which containers and root do not have: the page is our own and loads nothing.
        command = [
            program,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-pdf-header-footer",
            f"--user-data-dir={folder}/profile",
            f"--print-to-pdf={out}",
            page.as_uri(),
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_LONGEST, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CapacityError(f"{program} could not print the PDF: {error}") from None
        if not out.exists():
            lines = done.stderr.strip().splitlines()
            raise CapacityError(
                f"{program} could not print the PDF: {lines[-1] if lines else f'exit code {done.returncode}'}"
            )
        return out.read_bytes()
