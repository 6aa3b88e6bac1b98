"""The training guide against the code: settings, forms, options, commands, examples, files. See test_docs.py."""

import re

import pytest
import typer

from qsit_plugin.cli.app import app
from qsit_plugin.training.data import conversations, ratings
from tests.docs.quotes import OPTION, ROOT, commands, resolved, settings_of

GUIDE = ("training.md", "training-data.md", "training-run.md", "balance.md")
CONFIGS = ROOT / "training" / "configs"
RUN, SEARCH = ROOT / "training" / "config.py", ROOT / "training" / "balance" / "settings.py"
NEEDED = {"base": "qsit-nano", "data": "rows.jsonl", "images": ".", "output": "out"}


def guide(*names: str) -> str:
    return "".join((ROOT / "docs" / name).read_text("utf-8") for name in names)


def test_every_setting_that_the_training_guide_or_an_example_shows_is_one_of_a_run_or_a_search():
    settings = {*settings_of(RUN, "RunConfig"), *settings_of(SEARCH, "SearchSettings"), "datasets"}
    shown = "\n".join(re.findall(r"```yaml\n(.*?)```", guide(*GUIDE), re.DOTALL))
    for name in ("lora.yaml", "full.yaml", "balance.yaml"):
        shown += (CONFIGS / name).read_text("utf-8")
    named = set(re.findall(r"^(?:# )?(\w+): ", shown, re.MULTILINE))
    for _, words in commands("qsit"):
        if words[:2] == ["train", "run"] or words[:3] == ["train", "balance", "search"]:
            named |= {word.split("=")[0] for word in words[2:] if re.match(r"\w+=", word)}
    assert len(named) > 25
    assert not named - settings


@pytest.mark.parametrize(
    ("path", "name", "page"), [(RUN, "RunConfig", "training-run.md"), (SEARCH, "SearchSettings", "balance.md")]
)
def test_every_setting_is_in_a_table_of_the_training_guide(path, name, page):
    rows = re.findall(r"^\| (`[^|]*) \|", guide(page), re.MULTILINE)
    told = [setting for row in rows for setting in re.findall(r"`(\w+)`", row)]
    assert not [setting for setting in settings_of(path, name) if told.count(setting) < 1]


def test_every_form_that_is_converted_is_in_the_table_of_forms():
    first = re.findall(r"^\| (`[^|]*) \|", guide("training-data.md"), re.MULTILINE)
    told = {name for cell in first for name in re.findall(r"`(\w+)`", cell)}
    assert not {*ratings.NAMES, *conversations.NAMES} - told


def test_every_option_of_qsit_train_is_told_by_the_training_guide():
    shared = {"--help", "--verbose", "--device", "--dtype", "--revision"}  # in docs/command-line.md, or plain
    train = typer.main.get_command(app).commands["train"]
    commands = {**train.commands, **train.commands["balance"].commands}
    del commands["balance"]
    told = set(OPTION.findall(guide(*GUIDE)))
    for name, command in commands.items():
        options = {o for p in command.params for o in p.opts if o[:2] == "--"} - shared
        assert not options - told, name


def test_every_tracker_is_told_by_the_training_guide():
    (listed,) = re.findall(r"^Tracker = Literal\[(.*?)\]", RUN.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    names = re.findall(r'"(\w+)"', listed)
    assert len(names) > 5
    assert not [name for name in names if name not in guide("training-run.md")]


def test_every_file_of_a_training_run_has_its_place_in_the_design():
    told = (ROOT / "docs" / "design.md").read_text("utf-8")
    files = [path.name for path in (ROOT / "training").glob("*.py") if path.name != "__init__.py"]
    assert len(files) > 15
    assert not [name for name in files if f"`{name}`" not in told]


def test_every_command_of_qsit_train_in_the_guide_has_the_arguments_that_it_needs():
    seen = 0
    for quote, words in commands("qsit"):
        if quote.document.name in GUIDE and quote.block and words[:1] == ["train"]:
            command, left, _ = resolved(words)
            command.make_context("qsit", list(left))  # raises UsageError
            seen += 1
    assert seen > 25


@pytest.mark.parametrize("page", GUIDE)
def test_the_yaml_of_the_guide_and_what_it_shows_in_comments_is_valid(page):
    yaml = pytest.importorskip("yaml", reason="settings are YAML")
    pytest.importorskip("pydantic", reason="pydantic checks settings")
    from qsit_plugin.training.balance.settings import SearchSettings
    from qsit_plugin.training.config import RunConfig

    for text in re.findall(r"```yaml\n(.*?)```", guide(page), re.DOTALL):
        for block in (text, re.sub(r"^# (\w+: )", r"\1", text, flags=re.MULTILINE)):
            content = yaml.safe_load(block)
            if "samples" in content:
                SearchSettings(**content)
            elif "datasets" not in content:
                RunConfig(**NEEDED | content)


@pytest.mark.parametrize("name", ["lora.yaml", "full.yaml"])
def test_settings_in_comments_of_the_examples_are_valid(name):
    yaml = pytest.importorskip("yaml", reason="settings are YAML")
    pytest.importorskip("pydantic", reason="pydantic checks settings")
    from qsit_plugin.training.config import RunConfig

    text = re.sub(r"^# (\w+: )", r"\1", (CONFIGS / name).read_text("utf-8"), flags=re.MULTILINE)
    assert len(vars(RunConfig(**yaml.safe_load(text)))) > 40


def test_the_levels_that_the_guide_shows_are_what_the_code_gives():
    (code,) = re.findall(r"```python\n(.*?)```", guide("training-data.md"), re.DOTALL)
    names = {}
    for line in code.splitlines():
        call, _, said = line.partition("#")
        if not said:
            exec(call, names)  # the import, and the scale
            continue
        found = eval(call, names)
        wanted = eval(re.split(r"[;,] [a-zN]", said.strip())[0])
        assert found == (wanted if isinstance(wanted, str) else pytest.approx(wanted, abs=6e-4))
