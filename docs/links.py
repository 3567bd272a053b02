"""Links of the repository's texts: led to their page of the site, or taken away where the site has none."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_PARTS = re.compile(
    r"(?P<code>^(?P<fence>`{3,}|~{3,}).*?^(?P=fence)\s*$)"
    r"|(?P<link>(?P<mark>!?)\[(?P<text>(?:[^\[\]]|\[[^\[\]]*\])*)\]\((?P<target>[^()\s]+)\))"
    r"|(?P<inline>`[^`\n]+`)",
    re.MULTILINE | re.DOTALL,
)
_ELSEWHERE = re.compile(r"^([a-z][a-z0-9+.-]*:|#)", re.IGNORECASE)


class Places:
    """Where files of the repository stand on the site.

    Args:
        source: the source folder that Sphinx will read.
        pages: page (path in that folder) or label ("#api-units") by path of the file in the repository.
    """

    def __init__(self, source: Path, pages: dict[str, str]):
        self.source, self.pages = source, pages

    def relink(self, text: str, folder: Path, page: str) -> str:
        """Markdown with its relative links led to the site; code is left alone.

        Args:
            text: Markdown.
            folder: folder of the repository from which its links count.
            page: path of the page that will hold it, in the source folder.

        Raises:
            FileNotFoundError: a picture that is not there.
        """

        def replace(part: re.Match) -> str:
            if not part["link"] or _ELSEWHERE.match(part["target"]):
                return part[0]
            path, _, fragment = part["target"].partition("#")
            target = (folder / path).resolve()
            if part["mark"]:
                return f"![{part['text']}]({self._picture(target, page)})"
            place = self.pages.get(os.path.relpath(target, ROOT))
            if place is None:
                return part["text"]
            if place.startswith("#"):
                return f"[{part['text']}]({place})"
            relative = os.path.relpath(place, Path(page).parent)
            return f"[{part['text']}]({relative}{'#' + fragment if fragment else ''})"

        return _PARTS.sub(replace, text)

    def _picture(self, picture: Path, page: str) -> str:
        copied = self.source / "pictures" / picture.name
        copied.parent.mkdir(exist_ok=True)
        shutil.copyfile(picture, copied)
        return os.path.relpath(copied, (self.source / page).parent)
