"""KonIQ-10k, SPAQ, LIVE-C, AGIQA-3K and tables of the user: well-formed and malformed files."""

from pathlib import Path

import numpy as np
import pytest
from openpyxl import Workbook
from scipy.io import savemat

from qsit_plugin.evaluation.datasets.authentic import Columns, livec_half, read_livec
from qsit_plugin.evaluation.datasets.published import read_ratings
from qsit_plugin.evaluation.datasets.ratings import DatasetError


def refusal(*arguments, **options) -> str:
    """The message of the DatasetError that reading must raise; one line."""
    with pytest.raises(DatasetError) as caught:
        read_ratings(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def koniq_sets(tmp_path: Path) -> Path:
    path = tmp_path / "koniq10k_distributions_sets.csv"
    path.write_text(
        "image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,set\n"
        "1.jpg,0.0,0.25,0.25,0.5,0.0,100,61.5,0.5,training\n"
        "2.jpg,0.0,0.0,0.0,0.75,0.25,104,80.5,0.4,test\n",
        encoding="utf-8",
    )
    return path


def test_koniqs_test_split_is_the_default(koniq_sets: Path) -> None:
    ratings = read_ratings("koniq", koniq_sets, partial=True)
    assert (ratings.split, ratings.expected) == ("test", 2015)
    (row,) = ratings.rows
    assert (row.image, row.mos, row.quality, row.split, row.source) == ("2.jpg", 80.5, 80.5, "test", "2.jpg")
    assert row.votes == (0.25, 0.75, 0.0, 0.0, 0.0)
    assert row.sd == pytest.approx(10.0)


def test_all_splits_can_be_had_together(koniq_sets: Path) -> None:
    ratings = read_ratings("koniq", koniq_sets, split="all", partial=True)
    assert (ratings.split, ratings.expected, len(ratings.rows)) == ("all", 10_073, 2)


def test_an_unknown_split_is_refused_with_those_that_exist(koniq_sets: Path) -> None:
    message = refusal("koniq", koniq_sets, split="val", partial=True)
    assert "no split 'val'" in message
    assert "test, training and all" in message


def test_koniqs_other_form_gives_the_z_score_and_the_shares_of_counted_votes(tmp_path: Path) -> None:
    path = tmp_path / "koniq10k_scores_and_distributions.csv"
    path.write_text(
        '"image_name","c1","c2","c3","c4","c5","c_total","MOS","SD","MOS_zscore"\n"1.jpg",0,0,25,73,7,105,3.8,0.52,77.4\n',
        encoding="utf-8",
    )
    ratings = read_ratings("koniq", path, partial=True)
    assert (ratings.split, ratings.expected) == ("all", 10_073)
    assert ratings.rows[0].mos == 77.4
    assert ratings.rows[0].votes == pytest.approx((7 / 105, 73 / 105, 25 / 105, 0, 0))
    assert "no splits" in refusal("koniq", path, split="test", partial=True)


def test_a_file_of_another_size_is_refused_with_both_numbers(koniq_sets: Path) -> None:
    message = refusal("koniq", koniq_sets)
    assert "has 2 images" in message
    assert "10,073" in message
    assert "--partial" in message


def test_an_image_that_is_listed_twice_is_refused(koniq_sets: Path) -> None:
    with open(koniq_sets, "a", encoding="utf-8") as stream:
        stream.write("2.jpg,0,0,0,1,0,1,50,0.4,test\n")
    assert "lists 1 images more than once, the first is 2.jpg" in refusal("koniq", koniq_sets, partial=True)


@pytest.mark.parametrize("mos", ["", "n/a", "nan", "inf"])
def test_a_rating_that_is_no_number_is_refused_with_its_line(koniq_sets: Path, mos: str) -> None:
    koniq_sets.write_text(koniq_sets.read_text(encoding="utf-8").replace("80.5", mos), encoding="utf-8")
    message = refusal("koniq", koniq_sets, partial=True)
    assert "koniq10k_distributions_sets.csv, line 3" in message
    assert "'MOS'" in message


def test_a_missing_column_is_refused_with_those_that_exist(tmp_path: Path) -> None:
    path = tmp_path / "k.csv"
    path.write_text("image_name,MOS\n1.jpg,3\n", encoding="utf-8")
    message = refusal("koniq", path)
    assert "no column 'c5', 'c4', 'c3', 'c2', 'c1', 'SD'; its header holds 'image_name', 'MOS'" in message


def test_an_unknown_dataset_and_a_missing_file_are_refused_with_what_is_known(tmp_path: Path) -> None:
    assert "no dataset 'koniq10k': give one of koniq, spaq" in refusal("koniq10k", tmp_path)
    message = refusal("spaq", tmp_path / "gone.xlsx")
    assert "no such annotation file (SPAQ's is MOS and Image attribute scores.xlsx)" in message
    assert "is a folder: give the annotation file in it" in refusal("spaq", tmp_path)


def spaq_sheet(path: Path, rows: int) -> Path:
    book = Workbook(write_only=True)
    sheet = book.create_sheet("Sheet1")
    sheet.append(["Image name", "MOS", "Brightness", "Colorfulness", "Contrast", "Noisiness", "Sharpness"])
    for number in range(rows):
        sheet.append([f"{number + 1:05}.jpg", number % 101, 1, 2, 3, 4, 5])
    book.save(path)
    return path


def test_spaqs_sheet_of_full_size_is_read(tmp_path: Path) -> None:
    ratings = read_ratings("spaq", spaq_sheet(tmp_path / "MOS and Image attribute scores.xlsx", 11_125))
    assert (len(ratings.rows), ratings.split) == (11_125, "all")
    assert (ratings.rows[9].image, ratings.rows[9].mos, ratings.rows[9].sd) == ("00010.jpg", 9.0, None)


def test_a_file_that_is_no_spreadsheet_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scores.xlsx"
    path.write_text("Image name,MOS\n", encoding="utf-8")
    assert "is not a readable spreadsheet" in refusal("spaq", path)


def test_a_spreadsheet_without_the_columns_is_refused(tmp_path: Path) -> None:
    book = Workbook()
    book.active.append(["Image", "Score"])
    book.save(tmp_path / "scores.xlsx")
    assert "no column 'Image name', 'MOS'; its header holds 'Image', 'Score'" in refusal(
        "spaq", tmp_path / "scores.xlsx"
    )


@pytest.fixture
def livec(tmp_path: Path) -> Path:
    """The three MATLAB files in their true shapes: a 1169 x 1 cell array and two 1 x 1169 rows."""
    names = [f"t{number}.bmp" for number in range(1, 8)] + [f"{number}.JPG" for number in range(1, 1163)]
    cells = np.empty((1169, 1), dtype=object)
    cells[:, 0] = names
    savemat(tmp_path / "AllImages_release.mat", {"AllImages_release": cells})
    savemat(tmp_path / "AllMOS_release.mat", {"AllMOS_release": np.linspace(0, 100, 1169)[None]})
    savemat(tmp_path / "AllStdDev_release.mat", {"AllStdDev_release": np.full((1, 1169), 18.5)})
    return tmp_path


def test_livec_drops_the_seven_training_images(livec: Path) -> None:
    ratings = read_ratings("livec", livec / "AllMOS_release.mat")
    assert len(ratings.rows) == 1162
    first = ratings.rows[0]
    assert (first.image, first.mos, first.sd) == ("1.JPG", pytest.approx(100 * 7 / 1168), 18.5)
    assert read_livec(livec) == list(ratings.rows)


def test_livec_is_whole_unless_a_half_is_asked_for(livec: Path) -> None:
    assert read_ratings("livec", livec).split == "all"
    halves = [read_ratings("livec", livec, split=split, partial=True) for split in ("validation", "test")]
    assert [half.expected for half in halves] == [588, 574]
    assert sum(len(half.rows) for half in halves) == 1162


def test_livecs_halves_are_by_the_md5_of_the_file_name() -> None:
    assert [livec_half(name) for name in ("100.bmp", "101.bmp", "246.bmp", "333.bmp")] == [
        "validation", "test", "validation", "validation",
    ]  # fmt: skip


def test_livecs_picture_that_is_listed_twice_is_one_source(livec: Path) -> None:
    names = np.empty((1169, 1), dtype=object)
    names[:, 0] = [f"t{n}.bmp" for n in range(1, 8)] + [f"{n}.bmp" for n in range(1, 1163)]
    savemat(livec / "AllImages_release.mat", {"AllImages_release": names})
    source = {row.image: row.source for row in read_livec(livec)}
    assert source["333.bmp"] == source["246.bmp"] == "246.bmp"
    assert len(set(source.values())) == 1161


def test_livec_needs_all_three_files(livec: Path) -> None:
    (livec / "AllStdDev_release.mat").unlink()
    assert "lacks AllStdDev_release.mat" in refusal("livec", livec)


def test_livec_files_of_different_lengths_are_refused(livec: Path) -> None:
    savemat(livec / "AllMOS_release.mat", {"AllMOS_release": np.ones((1, 1162))})
    assert "1169 names, 1162 MOS, 1169 standard deviations" in refusal("livec", livec)


def test_a_mat_file_with_another_variable_or_of_another_kind_is_refused(livec: Path) -> None:
    savemat(livec / "AllMOS_release.mat", {"MOS": np.ones((1, 1169))})
    assert "holds no variable 'AllMOS_release', only MOS" in refusal("livec", livec)
    (livec / "AllMOS_release.mat").write_text("this is text, and long enough to be looked at as a header" * 9)
    assert "is not a readable MATLAB file" in refusal("livec", livec)


def test_agiqa_is_read_by_its_quality_ratings(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text(
        "name,prompt,adj1,adj2,style,mos_quality,std_quality,mos_align,std_align\n"
        'sd1.5_normal_000.jpg,"a cat, sleeping",,,,3.5,0.25,1.0,0.5\n',
        encoding="utf-8",
    )
    (row,) = read_ratings("agiqa3k", path, partial=True).rows
    assert (row.image, row.mos, row.sd) == ("sd1.5_normal_000.jpg", 3.5, 0.25)


def test_a_table_of_ones_own_is_read_by_its_column_names(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text(
        "file;x,dmos,part,photo,kind\n"  # a name may hold anything but a comma
        "album\\one.jpg,2.5,test,a,blur\n"
        " two.jpg ,1.5,train,a,\n",
        encoding="utf-8-sig",
    )
    columns = Columns("file;x", "dmos", "part", "photo", "kind", lower_is_better=True)
    ratings = read_ratings("csv", path, columns=columns, split="all")
    assert (ratings.expected, ratings.scale, ratings.title) == (None, "dmos, lower is better", "own")
    one, two = ratings.rows
    assert (one.image, one.mos, one.quality, one.split, one.source, one.distortion) == (
        "album/one.jpg", 2.5, -2.5, "test", "a", "blur",
    )  # fmt: skip
    assert (two.image, two.distortion) == ("two.jpg", None)
    assert len(read_ratings("csv", path, columns=columns).rows) == 1


def test_every_column_of_a_table_is_kept_as_a_text(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("image,mos,camera,iso\n1.jpg,3,A,100\n2.jpg,4, ,\n", encoding="utf-8")
    one, two = read_ratings("csv", path).rows
    assert (one.label("camera"), one.label("iso"), one.label("mos"), one.label("lens")) == ("A", "100", "3", None)
    assert (two.label("camera"), two.label("iso"), two.label("source")) == (None, None, "2.jpg")


def test_an_empty_table_and_one_in_another_encoding_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "own.csv"
    path.write_text("image,mos\n", encoding="utf-8")
    assert "holds no rows" in refusal("csv", path)
    path.write_bytes("image,mos\nÜbung.jpg,3\n".encode("utf-16"))
    assert "not a text file in UTF-8" in refusal("csv", path)


def test_a_rating_of_livec_that_is_no_number_is_refused(livec: Path) -> None:
    savemat(livec / "AllMOS_release.mat", {"AllMOS_release": np.array([[50.0] * 1168 + [np.nan]])})
    assert "1162.JPG of LIVE-C: MOS nan" in refusal("livec", livec)


@pytest.mark.parametrize(
    ("name", "file", "lines"),
    [
        ("agiqa3k", "data.csv", ["name,mos_quality,std_quality", "1.jpg,2.5,0.5", "2.jpg,x,0.5"]),
        ("koniq", "votes.csv", ["image_name,c1,c2,c3,c4,c5,MOS,SD", "1.jpg,0,0,1,0,0,50,0.1", "2.jpg,0,0,0,0,0,50,0"]),
        ("kadid10k", "dmos.csv", ["dist_img,dmos,var", "I01_01_01.png,4,0.5", "I01_01_02.png,4,-0.5"]),
        ("kadid10k", "mos.txt", ["I01_01_01.png\t4.5\t0.8", "I01_01_02.png"]),
        ("tid2013", "mos_with_names.txt", ["5.5 I01_01_1.bmp", "x I01_01_2.bmp"]),
        ("csiq", "csiq.txt", ["1600.AWGN.1.png 0.1", "1600.SNOW.1.png 0.1"]),
    ],
)
def test_malformed_rows_can_be_noted_instead(tmp_path: Path, name: str, file: str, lines: list[str]) -> None:
    path = tmp_path / file
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    bad: list[str] = []
    assert len(read_ratings(name, path, split="all", partial=True, bad=bad).rows) == 1
    assert len(bad) == 1
    assert refusal(name, path, split="all", partial=True) == bad[0]


def test_koniqs_and_agiqa3ks_rows_without_a_deviation_are_kept(koniq_sets: Path, tmp_path: Path) -> None:
    koniq_sets.write_text(koniq_sets.read_text(encoding="utf-8").replace(",80.5,0.4,", ",80.5,,"), encoding="utf-8")
    rows = read_ratings("koniq", koniq_sets, split="all", partial=True).rows
    assert [row.sd for row in rows] == [pytest.approx(12.5), None]
    path = tmp_path / "data.csv"
    path.write_text("name,mos_quality,std_quality\n1.jpg,2.5,NaN\n2.jpg,3.5,0.5\n", encoding="utf-8")
    assert [row.sd for row in read_ratings("agiqa3k", path, partial=True).rows] == [None, 0.5]


def test_a_tables_empty_deviations_are_none_and_other_texts_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("image,mos,sd\n1.jpg,3,\n2.jpg,3,0.4\n3.jpg,3, \n4.jpg,3,nan\n5.jpg,3,N/A\n", encoding="utf-8")
    columns = Columns(sd="sd")
    assert [row.sd for row in read_ratings("csv", path, columns=columns).rows] == [None, 0.4, None, None, None]
    path.write_text("image,mos,sd\n1.jpg,3,inf\n", encoding="utf-8")
    assert "line 2, column 'sd': 'inf' is not a finite number" in refusal("csv", path, columns=columns)
    path.write_text("image,mos,sd\n1.jpg,nan,1\n", encoding="utf-8")
    assert "line 2, column 'mos': 'nan' is not a finite number" in refusal("csv", path, columns=columns)


@pytest.mark.parametrize("header", ["image,mos,mos", "image,mos,image"])
def test_a_needed_column_that_stands_twice_is_refused(tmp_path: Path, header: str) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(f"{header}\n1.jpg,1,5\n2.jpg,2,4\n", encoding="utf-8")
    assert f"several columns called {header.split(',')[2]!r}: rename all but one" in refusal("csv", path)


def test_a_quote_that_is_not_closed_is_refused_and_takes_no_rows_with_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text('image,mos,note\n1.jpg,1,\n2.jpg,2,"oops\n3.jpg,3,\n4.jpg,4,\n', encoding="utf-8")
    assert "is a quote not closed?" in refusal("csv", path)
