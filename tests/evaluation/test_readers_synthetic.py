"""KADID-10k, TID2013 and CSIQ: files of the true form, and files that are wrong."""

from pathlib import Path

import pytest
from openpyxl import Workbook

from qsit_plugin.evaluation.datasets.published import read_ratings
from qsit_plugin.evaluation.datasets.ratings import DatasetError
from qsit_plugin.evaluation.datasets.synthetic import CSIQ_TYPES, KADID_TYPES, TID2013_TYPES


def refusal(name: str, path: Path) -> str:
    with pytest.raises(DatasetError) as caught:
        read_ratings(name, path, partial=True)
    return str(caught.value)


def test_kadids_table_of_full_size_is_read_and_higher_is_better(tmp_path: Path) -> None:
    path = tmp_path / "dmos.csv"
    lines = [
        f"I{photo:02}_{kind:02}_{level:02}.png,I{photo:02}.png,{5 - level * 0.8:.2f},0.496\n"
        for photo in range(1, 82)
        for kind in range(1, 26)
        for level in range(1, 6)
    ]
    path.write_text("dist_img,ref_img,dmos,var\n" + "".join(lines), encoding="utf-8")
    rows = read_ratings("kadid10k", path).rows
    assert len(rows) == 10_125
    assert (rows[0].image, rows[0].mos, rows[0].quality) == ("I01_01_01.png", 4.2, 4.2)
    assert (rows[0].source, rows[0].distortion, rows[0].level) == ("I01", "Gaussian blur", 1)
    assert rows[0].sd == pytest.approx(0.704, abs=5e-4)  # what the lists with an SD give for I01_01_01
    assert len({row.source for row in rows}) == 81
    assert {row.distortion for row in rows} == set(KADID_TYPES)


@pytest.mark.parametrize(
    ("line", "sd"),
    [
        ("images/I32_01_02.png\t4.390000\t0.839047", 0.839047),
        ("images/I32_01_02.png\t4.39\tgaussian blur\tcity\t\t", None),
    ],
)
def test_kadids_lists_with_tabs_are_read(tmp_path: Path, line: str, sd: float | None) -> None:
    path = tmp_path / "list.txt"
    path.write_text(line + "\n", encoding="utf-8")
    (row,) = read_ratings("kadid10k", path, partial=True).rows
    assert (row.image, row.mos, row.sd, row.distortion) == ("images/I32_01_02.png", 4.39, sd, "Gaussian blur")


def test_a_name_that_does_not_say_what_was_done_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "dmos.csv"
    path.write_text("dist_img,ref_img,dmos,var\nI01_26_01.png,I01.png,4,0.5\n", encoding="utf-8")
    assert "dmos.csv, line 2: 'I01_26_01.png' is not named like I01_02_3, with a distortion from 1 to 25" in refusal(
        "kadid10k", path
    )


def test_tids_list_of_full_size_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mos_with_names.txt"
    lines = [
        f"{7 - level:.5f} I{photo:02}_{kind:02}_{level}.bmp\n"
        for photo in range(1, 26)
        for kind in range(1, 25)
        for level in range(1, 6)
    ]
    path.write_text("".join(lines), encoding="utf-8")
    rows = read_ratings("tid2013", path).rows
    assert len(rows) == 3_000
    assert (rows[-1].image, rows[-1].mos, rows[-1].quality) == ("I25_24_5.bmp", 2.0, 2.0)
    assert (rows[-1].source, rows[-1].distortion, rows[-1].level) == ("I25", "sparse sampling and reconstruction", 5)


def test_the_type_names_are_as_many_as_the_papers_have_and_distinct() -> None:
    assert (len(set(KADID_TYPES)), len(set(TID2013_TYPES)), len(CSIQ_TYPES)) == (25, 24, 6)


def test_a_line_of_another_form_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mos_with_names.txt"
    path.write_text("I01_01_1.bmp\n", encoding="utf-8")
    assert "line 1: expected a MOS and a file name" in refusal("tid2013", path)
    path.write_text("five I01_01_1.bmp\n", encoding="utf-8")
    assert "line 1: 'five' is not a finite number" in refusal("tid2013", path)


@pytest.fixture
def csiq_book(tmp_path: Path) -> Path:
    """As published: several sheets, titles above the header, the table shifted to column D, a name that is a number."""
    book = Workbook()
    book.active.title = "all_by_distortion"
    book.active.append(["something else"])
    sheet = book.create_sheet("all_by_image")
    sheet["A1"] = "CSIQ DMOS"
    header = ["image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos"]
    for column, name in enumerate(header, 4):
        sheet.cell(4, column, name)
    names = [1600, "aerial_city", *(f"photo{number}" for number in range(28))]
    kinds = [kind for kind in CSIQ_TYPES if kind != "contrast"]
    table = [(name, kind, level) for name in names for kind in kinds for level in range(1, 6)]
    table += [(name, "contrast", level) for name in names[:29] for level in range(1, 5)]
    for row, (name, kind, level) in enumerate(table, 5):
        for column, value in enumerate((name, 1, kind, level, 0.1, level / 6), 4):
            sheet.cell(row, column, value)
    path = tmp_path / "csiq.DMOS.xlsx"
    book.save(path)
    return path


def test_csiqs_workbook_of_full_size_is_read_and_lower_is_better(csiq_book: Path) -> None:
    rows = read_ratings("csiq", csiq_book).rows
    assert len(rows) == 866
    assert (rows[0].image, rows[0].source) == ("awgn/1600.AWGN.1.png", "1600")
    assert (rows[0].distortion, rows[0].level, rows[0].sd) == ("noise", 1, 0.1)
    assert (rows[4].mos, rows[4].quality) == (pytest.approx(5 / 6), pytest.approx(-5 / 6))
    assert rows[24].image == "jpeg2000/1600.jpeg2000.5.png"


def test_csiqs_table_as_csv_and_its_list_of_names_agree(tmp_path: Path) -> None:
    table, names = tmp_path / "csiq.csv", tmp_path / "csiq_label.txt"
    table.write_text("image,dst_type,dst_lev,dmos\n1600,noise,1,0.062\nboston,blur,5,0.9\n", encoding="utf-8")
    names.write_text("1600.AWGN.1.png\t0.062\t0.938\nboston.BLUR.5.png 0.9\n", encoding="utf-8")
    first = read_ratings("csiq", table, partial=True).rows
    second = read_ratings("csiq", names, partial=True).rows
    for a, b in zip(first, second, strict=True):
        assert (a.quality, a.source, a.distortion, a.level) == (b.quality, b.source, b.distortion, b.level)
        assert Path(a.image).name == b.image


def test_an_unknown_csiq_distortion_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "csiq.csv"
    path.write_text("image,dst_type,dst_lev,dmos\n1600,fog,1,0.062\n", encoding="utf-8")
    assert "line 2: no distortion 'fog' in CSIQ; it has noise, blur" in refusal("csiq", path)
    path = tmp_path / "csiq.txt"
    path.write_text("1600.FOG.1.png 0.1\n", encoding="utf-8")
    assert "expected a name like 1600.AWGN.1.png and a DMOS" in refusal("csiq", path)
