"""An export format: the same files in another folder."""

import filecmp
import shutil
from pathlib import Path

from depthprune.errors import CannotExportError
from depthprune.exporting.base import Exported, NoOptions, exporter


@exporter("copy")
def copy(checkpoint: Path, target: Path, options: NoOptions) -> Exported:
    """The same files in another folder."""
    shutil.copytree(checkpoint, target, dirs_exist_ok=True)
    names = [str(file.relative_to(checkpoint)) for file in checkpoint.rglob("*") if file.is_file()]
    same, different, missing = filecmp.cmpfiles(checkpoint, target, names, shallow=False)
    if different or missing:
        raise CannotExportError(f"'{(different + missing)[0]}' was not copied; export again")
    return Exported(target, f"{len(same)} files are the same, byte for byte")
