"""What lies in an image folder: class folders in order, images to use, and a reason for all that is left out."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from absence_utils.errors import InputError, brief, require_choice

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
CLASS_ORDERS = ("numerical", "alphabetical")
# What systems and tools leave in folders; so is all that begins with a dot.
LEFTOVERS = {"__MACOSX", "__pycache__", "@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found",
             "Thumbs.db", "desktop.ini"}  # fmt: skip
REMEDY = "Give a folder that holds one folder of images for each class, or images alone."


@dataclass
class FolderScan:
    """Attributes:
    files: images to use, class after class, sorted within each.
    classes: names of the class folders in order.
    unusable: what has an image's name and cannot be used, with the reason.
    ignored: hidden folders and images, and what tools left.
    repeated: linked folders that lead back to a folder whose images are counted already.
    others: number of files of other kinds in class folders, by ending.
    """

    files: list[Path] = field(default_factory=list)
    classes: list[str] = field(default_factory=list)
    unusable: dict[Path, str] = field(default_factory=dict)
    ignored: list[Path] = field(default_factory=list)
    repeated: list[Path] = field(default_factory=list)
    others: Counter = field(default_factory=Counter)


def scan_folder(root: Path, class_order: str = "numerical") -> FolderScan:
    """List an image folder. Links are followed, each folder once in a class; no image is opened.

    Args:
        root: folder with one folder for each class; one without folders is one class of its name.
        class_order: see `order_classes`.

    Raises:
        InputError: no such folder, no images in it, a class folder without images or with a name that is not UTF-8.
    """
    require_choice("class_order", class_order, CLASS_ORDERS)
    if not os.path.isdir(root):  # no error for what is no path
        raise InputError("images", f"there is no folder {brief(str(root))}", REMEDY)
    if readable(str(root.resolve())) != str(root.resolve()):
        raise InputError("images", f"the path {readable(str(root))!r} is not UTF-8", "Rename it.")
    scan, seen = FolderScan(), {_identity(folder) for folder in (root, *root.resolve().parents)}
    found: dict[str, list[Path]] = {}
    images = []
    for path, reason in _entries(root, scan):
        if _has_image_name(path) and not path.is_dir():
            images.append(path)
            scan.unusable |= {path: reason} if reason else {}
        elif reason:
            problem = f"the class folder {readable(path.name)!r} cannot be used: {reason}"
            raise InputError("images", problem, "Repair or remove it: classes are numbered by their folders.")
        elif _identity(path) in seen:
            scan.repeated.append(path)
        else:
            found[path.name] = sorted(_walk(path, scan, set(seen)))
    if found:
        scan.unusable = {path: "it lies beside the class folders" for path in images} | scan.unusable
    else:
        found = {root.resolve().name: [path for path in images if path not in scan.unusable]}
    scan.classes = order_classes(list(found), class_order)
    scan.files = [file for name in scan.classes for file in found[name]]
    return scan


def order_classes(names: list[str], class_order: str = "numerical") -> list[str]:
    """Class folders in the order of the network's outputs.

    Args:
        class_order: "numerical": folders whose names are all numbers by their number (0, 1, 2, 10), others by their
            letters. "alphabetical": all by their letters (0, 1, 10, 2), as torchvision's ImageFolder numbers them.
    """
    if class_order == "numerical" and all(re.fullmatch(r"\d+", name) for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def _entries(folder: Path, scan: FolderScan) -> Iterator[tuple[Path, str]]:
    """(folder or image, "" or why it cannot be used) of what lies in a folder; the rest is noted in `scan`."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        problem = f"the folder {brief(readable(str(folder)))} cannot be listed ({error.strerror})"
        raise InputError(
            "images", problem, "Allow reading and entering it, or give another folder."
        ) from None
    for name in names:
        path = folder / name
        if name.startswith(".") or name in LEFTOVERS:
            if _has_image_name(path) or path.is_dir():
                scan.ignored.append(path)
            continue
        try:
            mode = path.stat().st_mode
        except OSError as error:
            yield path, f"{'its link leads nowhere: ' * path.is_symlink()}{error.strerror}"
            continue
        if not _has_image_name(path) and not stat.S_ISDIR(mode):
            scan.others[path.suffix.lower() or "no ending"] += 1
        elif readable(name) != name:
            yield path, "its name is not UTF-8"
        elif stat.S_ISDIR(mode) and not os.access(path, os.R_OK | os.X_OK):
            yield path, "it cannot be listed"
        elif not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
            yield path, "it is no regular file"
        else:
            yield path, ""


def _walk(folder: Path, scan: FolderScan, seen: set) -> Iterator[Path]:
    """Images below a folder; `seen` are the folders that are not entered again."""
    if _identity(folder) in seen:
        scan.repeated.append(folder)
        return
    seen.add(_identity(folder))
    for path, reason in _entries(folder, scan):
        if reason:
            scan.unusable[path] = reason
        elif path.is_dir():
            yield from _walk(path, scan, seen)
        else:
            yield path


def _identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _has_image_name(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def readable(name: str) -> str:
    """A file's name as text; bytes that are not UTF-8 as escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
