"""The list of files that another process opens."""

from pathlib import Path

import pytest

from trainables.dataset import DataError
from trainables.loading.image_files import open_images


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": 5}', "[" * 100_000])
def test_a_damaged_list_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / "files.json").write_text(text, "utf-8")
    with pytest.raises(DataError, match=r"files\.json is damaged"):
        open_images(tmp_path / "files.json")
