"""Which pictures are meant, and names for their outputs that never meet."""

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from model.predict.picture_files import find_pictures, output_names


def test_pictures_are_found_by_folder_pattern_and_name(tmp_path: Path) -> None:
    everything = ["broken.jpg", "square.webp", "tall.v2.jpg", "wide.png", "z/deep.png"]
    (tmp_path / "z").mkdir()
    for name in (*everything, "notes.txt"):
        (tmp_path / name).touch()

    def found(*targets: str, out: str = "nowhere") -> list[str]:
        files = find_pictures([tmp_path / t for t in targets], tmp_path / out)
        return [file.relative_to(tmp_path).as_posix() for file in files]

    assert found(".") == found("**/*") == everything
    assert found("*.png") == ["wide.png"] and found("**/*.png") == ["wide.png", "z/deep.png"]
    assert found("wide.png", "*") == [
        "wide.png",
        *(n for n in everything if "/" not in n and n != "wide.png"),
    ]
    assert found("notes.txt") == ["notes.txt"]  # as named; its row will have a reason
    assert "z/deep.png" not in found(".", out="z")  # a run's own maps are no pictures
    (tmp_path / ".hidden.png").touch()
    (tmp_path / "[1].png").touch()
    assert ".hidden.png" not in found(".") and found("[1].png") == ["[1].png"]


PART = st.text("aA.é", min_size=1, max_size=2)


@settings(max_examples=200)
@given(
    st.lists(st.tuples(PART, PART, st.sampled_from([".png", ".jpg", ".png.jpg"])), max_size=8, unique=True)
)
def test_no_two_names_are_the_same_even_where_case_does_not_count(parts: list[tuple[str, str, str]]) -> None:
    paths = list(dict.fromkeys(Path("x" + folder) / f"x{stem}{suffix}" for folder, stem, suffix in parts))
    names = output_names(paths)
    assert len({name.casefold() for name in names}) == len(paths)
    assert not any("/" in name for name in names)
