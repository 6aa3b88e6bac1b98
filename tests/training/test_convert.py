"""Conversion to training rows: what comes out, what is counted, and that the published files come out as they are."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from qsit_plugin.evaluation.datasets.authentic import Columns
from qsit_plugin.evaluation.datasets.published import read_ratings
from qsit_plugin.evaluation.datasets.ratings import DatasetError
from qsit_plugin.protocol import OFFICIAL, TRAINING_CONSISTENT, ScoreProfile
from qsit_plugin.training.data.conversations import convert_conversations
from qsit_plugin.training.data.conversion import Conversion, Images
from qsit_plugin.training.data.ratings import convert_ratings
from qsit_plugin.training.data.rows import RowError, from_record, to_llava, to_record, write_rows
from qsit_plugin.training.levels import LevelScale

QUESTION = TRAINING_CONSISTENT.question
UNCHECKED = Images(Path("photos"), Path("photos"), check=False)


def table(folder: Path, *lines: str) -> Path:
    path = folder / "mine.csv"
    path.write_text("\n".join(["image,mos,sd,split", *lines]) + "\n", encoding="utf-8")
    return path


def convert_table(path: Path, images: Images = UNCHECKED, **options) -> Conversion:
    columns = Columns(sd="sd", split="split")
    return convert_ratings("csv", path, images, **({"scale": LevelScale.custom(1, 5), "columns": columns} | options))


def llava(identity: object, image: object, *texts: str) -> dict:
    turns = [{"from": ("human", "gpt")[number % 2], "value": text} for number, text in enumerate(texts)]
    return {"id": identity, "image": image, "conversations": turns}


def rating(identity: str, image: str, level: str) -> dict:
    return llava(identity, image, f"{QUESTION}\n<image>", f"The quality of the image is {level}.")


def converted(folder: Path, name: str, records: list[dict], images: Images = UNCHECKED, **options) -> Conversion:
    path = folder / f"{name}.json"
    path.write_text(json.dumps(records), encoding="utf-8")
    return convert_conversations(name, path, images, **options)


def problems(result: Conversion) -> dict[str, list[str]]:
    assert dict(result.problems.counts) == {kind: len(found) for kind, found in result.problems.examples.items()}
    return result.problems.examples


def test_koniqs_votes_become_the_published_file_byte_for_byte(data: Path, tmp_path: Path) -> None:
    """7,046 rows: ids, levels, texts, order and layout."""
    images = Images(Path("koniq"), Path("."), check=False)
    result = convert_ratings("koniq", data / "annotations" / "koniq10k_votes.csv", images)
    written = write_rows(tmp_path / "train_koniq_qsit.json", result.rows)
    assert written.read_bytes() == (data / "official" / "train_koniq_qsit.json").read_bytes()
    assert (len(result.rows), result.dropped) == (7046, 12)
    assert dict(result.levels) == {"excellent": 2006, "good": 2798, "fair": 1393, "poor": 666, "bad": 183}
    assert not result.problems


@pytest.mark.parametrize(("name", "count"), [("koniq", 7046), ("spaq", 8897)])
def test_the_published_files_survive_the_way_through_our_rows(
    data: Path, tmp_path: Path, name: str, count: int
) -> None:
    source = data / "official" / f"train_{name}_qsit.json"
    first = convert_conversations("qsit", source, UNCHECKED)
    assert (len(first.rows), len(first.problems.counts), {row.source for row in first.rows}) == (count, 0, {name})
    rows = write_rows(tmp_path / "rows.jsonl", first.rows)
    again = convert_conversations("jsonl", rows, UNCHECKED)
    assert again.rows == first.rows
    assert write_rows(tmp_path / "again.json", again.rows).read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    ("name", "file", "count"), [("kadid10k", "kadid10k_mos_sd.txt", 10_125), ("agiqa3k", "agiqa3k.csv", 2_982)]
)
def test_a_real_dataset_is_converted_whole(data: Path, name: str, file: str, count: int) -> None:
    result = convert_ratings(name, data / "annotations" / file, UNCHECKED)
    assert (len(result.rows), result.dropped, bool(result.problems)) == (count, 0, False)
    scale = LevelScale.named(name)
    for row in result.rows[::100]:
        assert row.mos is not None
        assert row.answer == f"The quality of the image is {scale.level(row.mos)}."


def test_a_rated_image_becomes_a_row(tmp_path: Path) -> None:
    (row,) = convert_table(table(tmp_path, "a/1.jpg,3.6,0.1,training")).rows
    assert to_record(row) == {
        "id": "a/1.jpg->3.6",
        "image": "a/1.jpg",
        "task": "score",
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": QUESTION}, {"type": "image"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "The quality of the image is good."}]},
        ],
        "mos": 3.6,
        "level_probs": [0.0, 0.6, 0.4, 0.0, 0.0],
        "source": "mine",
        "split": "training",
        "quality": pytest.approx(0.65),
    }


def test_a_conversation_keeps_its_turns_and_where_its_image_stands(tmp_path: Path) -> None:
    record = llava(7, "a/1.jpg", "<image>\nIs it sharp?\nSay why.", "No.", "Noisy?", "A\n\nlittle. ")
    (row,) = converted(tmp_path, "q_instruct", [record]).rows
    assert (row.id, row.image, row.task, row.source, row.mos) == ("7", "a/1.jpg", "interpret", "q_instruct", None)
    assert row.messages[0]["content"] == [{"type": "image"}, {"type": "text", "text": "Is it sharp?\nSay why."}]
    assert [turn["role"] for turn in row.messages] == ["user", "assistant", "user", "assistant"]
    assert to_llava(row) == record | {"id": "7"}
    after = llava("8", "a/1.jpg", "Is it sharp?\n<image>", "No.")
    assert to_llava(converted(tmp_path, "llava", [after]).rows[0]) == after


def test_rows_without_an_id_get_one(tmp_path: Path) -> None:
    records = [llava(None, "1.jpg", "<image>\nWhy?", "So."), llava(None, "1.jpg", "<image>\nHow?", "Thus.")]
    assert [row.id for row in converted(tmp_path, "q_instruct", records).rows] == ["q_instruct-0", "q_instruct-1"]


def test_paths_are_relative_to_the_root_and_found_in_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "data" / "mine"
    folder.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(folder / "1.png")
    annotations = table(tmp_path, "1.PNG,3,0.1,training", "2.png,3,0.1,training")
    result = convert_table(annotations, Images(folder, folder.parent))
    assert [row.image for row in result.rows] == ["mine/1.png"]  # as it is on the disk, not as it is listed
    assert problems(result) == {"missing image": [f"2.png is not in {folder}"]}
    with pytest.raises(DatasetError, match="is not inside the root"):
        convert_table(annotations, Images(folder, tmp_path / "other"))


def test_a_conversations_missing_image_is_counted(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    records = [llava(name, name, "<image>\nWhy?", "So.") for name in ("1.png", "2.png", "2.png")]
    result = converted(tmp_path, "llava", records, Images(tmp_path, tmp_path.parent))
    assert [row.image for row in result.rows] == [f"{tmp_path.name}/1.png"]
    assert result.problems.counts == {"missing image": 2}
    with pytest.raises(DatasetError, match="no such image folder"):
        converted(tmp_path, "llava", records, Images(tmp_path / "none", tmp_path))


def test_ratings_off_the_scale_and_malformed_rows_are_counted_and_the_others_kept(tmp_path: Path) -> None:
    lines = ["1.jpg,3,0.1,training", "2.jpg,5.5,0.1,training", "3.jpg,good,0.1,training", "4.jpg,3,-0.1,training"]
    result = convert_table(table(tmp_path, *lines, "../5.jpg,3,0.1,training"))
    assert [row.image for row in result.rows] == ["1.jpg"]
    found = problems(result)
    assert found["MOS out of range"] == ["2.jpg: 5.5 is not on the scale custom (1 to 5)"]
    assert len(found["bad row"]) == 3
    assert "mine.csv, line 4, column 'mos': 'good' is not a finite number" in found["bad row"][0]
    assert "4.jpg: a standard deviation must be a number from 0 up, got -0.1" in found["bad row"]
    assert any("../5.jpg: the image path must be relative" in line for line in found["bad row"])


def test_a_malformed_row_does_not_make_a_whole_dataset_look_cut_off(tmp_path: Path, data: Path) -> None:
    text = (data / "annotations" / "koniq10k_votes.csv").read_text(encoding="utf-8")
    broken = tmp_path / "koniq.csv"
    broken.write_text(text.replace(",77.3836206897,", ",?,", 1), encoding="utf-8")
    result = convert_ratings("koniq", broken, UNCHECKED)
    assert (len(result.rows), dict(result.problems.counts)) == (7045, {"bad row": 1})
    broken.write_text("".join(text.splitlines(keepends=True)[:-1]), encoding="utf-8")
    with pytest.raises(DatasetError, match="has 10,072 images, but KonIQ-10k has 10,073"):
        convert_ratings("koniq", broken, UNCHECKED)


def test_a_text_that_says_another_level_than_its_rating_is_counted(tmp_path: Path) -> None:
    records = [
        rating("1.jpg->56.4", "spaq/1.jpg", "fair"),
        rating("2.jpg->56.4", "spaq/2.jpg", "good"),
        rating("3.jpg->94.0", "spaq/3.jpg", "excellent"),
        rating("4.jpg->120.0", "spaq/4.jpg", "excellent"),
    ]
    result = converted(tmp_path, "qsit", records)
    assert [row.id for row in result.rows] == ["1.jpg->56.4"]
    found = problems(result)
    assert found["text and level disagree"] == [
        "row 1 (2.jpg->56.4): the text says good, a MOS of 56.4 is fair on the scale spaq"
    ]
    assert found["MOS out of range"] == [
        "row 2 (3.jpg->94.0): 94.0 is outside 0 to 94, which spaq cuts into levels",
        "row 3 (4.jpg->120.0): 120.0 is outside 0 to 94, which spaq cuts into levels",
    ]


def test_a_changed_row_of_ours_is_noticed(tmp_path: Path) -> None:
    rows = convert_table(table(tmp_path, "1.jpg,3,0.1,training"), scale=LevelScale.named("kadid10k")).rows
    record = to_record(rows[0]) | {"source": "kadid10k", "mos": 4.9}
    found = problems(converted(tmp_path, "jsonl", [record]))
    assert found == {
        "text and level disagree": [
            "row 0 (1.jpg->3.0): the text says fair, a MOS of 4.9 is excellent on the scale kadid10k"
        ]
    }


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (llava("1", None, "<image>\nWhy?", "So."), "it names 0 images, but its conversation shows 1"),
        (llava("1", "/a/1.jpg", "<image>\nWhy?", "So."), "must be relative"),
        (llava("1", "C:\\a\\1.jpg", "<image>\nWhy?", "So."), "must be relative"),
        (llava("1", "1.jpg", "Why?", "So."), "it names 1 images, but its conversation shows 0"),
        (llava("1", "1.jpg", "<image>\n<image>\nWhy?", "So."), "it names 1 images, but its conversation shows 2"),
        (llava("1", "1.jpg", "Why?", "<image>\nSo."), "is an answer with an image: only questions show some"),
        (llava("1", "1.jpg", "<image>\nWhy?"), "pairs of a question and an answer"),
        (llava("1", "1.jpg", "<image>\nWhy?", "  "), r"turn 2 .*\(assistant\) has no text"),
        (llava("1", "1.jpg", "<image>", "So."), r"turn 1 .*\(user\) has no text"),
        ({"id": "1", "image": "1.jpg", "conversations": [{"from": "system", "value": "x"}] * 2}, "human or gpt"),
        ({"id": "1", "image": "1.jpg"}, "it has no conversations"),
    ],
)
def test_a_malformed_conversation_is_a_bad_row(tmp_path: Path, record: dict, message: str) -> None:
    (found,) = problems(converted(tmp_path, "q_instruct", [record]))["bad row"]
    assert found.startswith("row 0 (1): ")
    assert re.search(message, found), found


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (rating("1.jpg", "spaq/1.jpg", "fair"), "its id must be like photo.jpg->63.6, got '1.jpg'"),
        (rating("1.jpg->50", "mine/1.jpg", "fair"), "in no folder named like a level scale"),
        (rating("1.jpg->50", "spaq/1.jpg", "so so"), "is not 'The quality of the image is' and a level"),
        (rating("1.jpg->nan", "spaq/1.jpg", "fair"), "its MOS must be a finite number, got nan"),
    ],
)
def test_a_malformed_rating_is_a_bad_row(tmp_path: Path, record: dict, message: str) -> None:
    (found,) = problems(converted(tmp_path, "qsit", [record]))["bad row"]
    assert message in found


def test_only_the_first_five_of_a_kind_are_listed(tmp_path: Path) -> None:
    result = convert_table(table(tmp_path, *(f"{number}.jpg,9,0.1,training" for number in range(7))))
    lines = list(result.problems.lines())
    assert lines[0] == "MOS out of range: 7, the first 5:"
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg"]


def test_only_the_training_split_is_converted_unless_another_is_asked_for(tmp_path: Path) -> None:
    path = table(tmp_path, "1.jpg,3,0.1,training", "2.jpg,3,0.1,test")
    assert [row.image for row in convert_table(path).rows] == ["1.jpg"]
    assert [row.image for row in convert_table(path, split="test").rows] == ["2.jpg"]
    assert len(convert_table(path, split="all").rows) == 2
    with pytest.raises(DatasetError, match="no split 'val': give one of test, training, all"):
        convert_table(path, split="val")


def test_koniqs_file_without_splits_is_refused_for_its_test_images(tmp_path: Path) -> None:
    path = tmp_path / "koniq10k_scores_and_distributions.csv"
    path.write_text("image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,MOS_zscore\n1.jpg,0,25,25,50,0,100,3.25,0.5,61.5\n")
    with pytest.raises(DatasetError, match="does not name them: take the file that does, or give --split all"):
        convert_ratings("koniq", path, UNCHECKED, partial=True)
    (row,) = convert_ratings("koniq", path, UNCHECKED, partial=True, split="all", soft="votes").rows
    assert (row.mos, row.level_probs) == (61.5, (0.0, 0.5, 0.25, 0.25, 0.0))


def test_a_profile_of_ones_own_gives_the_wording(tmp_path: Path) -> None:
    words = (" excellent", " good", " fair", " poor", " bad")
    mine = ScoreProfile(question="How good?", answer_prefix="It is", level_words=words, level_token_ids=(1, 2, 3, 4, 5))
    (row,) = convert_table(table(tmp_path, "1.jpg,5,0.1,training"), profile=mine).rows
    assert row.messages[0]["content"][0]["text"] == "How good?"
    assert row.answer == "It is excellent."


def test_a_profile_whose_words_are_read_apart_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ends in a space: its level words are read apart.*profile 'training'"):
        convert_table(table(tmp_path, "1.jpg,5,0.1,training"), profile=OFFICIAL)


def test_a_table_needs_its_range(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs the range of its ratings"):
        convert_table(table(tmp_path, "1.jpg,5,0.1,training"), scale=None)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="none.json: no such file"):
        convert_conversations("llava", tmp_path / "none.json", UNCHECKED)
    (tmp_path / "torn.json").write_text('[{"id": 1}, {"id', encoding="utf-8")
    with pytest.raises(DatasetError, match="torn.json is not valid JSON"):
        convert_conversations("llava", tmp_path / "torn.json", UNCHECKED)


def test_a_row_with_unknown_keys_or_impossible_labels_is_refused(tmp_path: Path) -> None:
    record = to_record(convert_table(table(tmp_path, "1.jpg,3,0.1,training")).rows[0])
    for change, message in (
        ({"levels": 1}, r"unknown keys \['levels'\]"),
        ({"task": "rate"}, "must be one of score, interpret"),
        ({"level_probs": [1, 0, 0, 0]}, "five numbers, excellent to bad"),
        ({"level_probs": [0.9, 0, 0, 0, 0]}, "sum to 1"),
        ({"mos": "3"}, "a finite number, got '3'"),
        ({"id": ""}, "its id must be a text"),
    ):
        with pytest.raises(RowError, match=message):
            from_record(record | change)


def test_rows_are_written_as_jsonl_or_json_only(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must end in .jsonl .* or .json"):
        write_rows(tmp_path / "rows.txt", [])


def mos_of(text: str, folder: Path) -> list[float]:
    path = folder / "mine.csv"
    path.write_bytes(text.encode())
    return [row.mos for row in read_ratings("csv", path).rows]


@pytest.mark.parametrize(
    "text",
    [
        "image,mos\r\n1.png,2.5\r\n",
        "image;mos\n1.png;2.5\n",
        "image;mos\r\n1.png;2,5\r\n",
        "image\tmos\n1.png\t2.5\n",
        "\ufeffimage;mos\n1.png;2,5\n",
        'image,mos\n"1.png","2.5",\n',
    ],
)
def test_a_table_is_read_as_spreadsheets_of_any_language_write_it(tmp_path: Path, text: str) -> None:
    assert mos_of(text, tmp_path) == [2.5]


def test_a_decimal_comma_between_commas_is_refused_and_not_read_as_a_whole_number(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"mine.csv, line 2 has 3 cells, the header 2: .* write numbers with a point"
    ):
        mos_of("image,mos\n1.png,2,5\n", tmp_path)
    with pytest.raises(DatasetError, match=r"'2,5' is not a finite number; write 2\.5"):
        mos_of('image,mos\n1.png,"2,5"\n', tmp_path)


def test_a_folder_in_place_of_a_file_of_conversations_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is a folder: give the JSON file in it"):
        convert_conversations("llava", tmp_path, Images(tmp_path, tmp_path))


def test_a_text_that_no_file_can_hold_is_a_bad_row(tmp_path: Path) -> None:
    record = llava("1", "1.jpg", "<image>\nWhy \ud800?", "So.")
    (tmp_path / "data.json").write_text(json.dumps([record]), encoding="ascii")
    result = convert_conversations("llava", tmp_path / "data.json", Images(tmp_path, tmp_path, check=False))
    assert not result.rows
    assert "half of a surrogate pair" in "\n".join(result.problems.lines())


def test_json_that_is_nested_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text("[" * 100_000, encoding="ascii")
    with pytest.raises(DatasetError, match="object 0 is nested too deeply"):
        convert_conversations("llava", tmp_path / "data.json", Images(tmp_path, tmp_path, check=False))
