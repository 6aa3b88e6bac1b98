"""What README and docs say of the code is so: commands, options, files, names, links, settings, variables."""

import json
import re
import tomllib

import typer

from qsit_plugin.cli.app import app
from qsit_plugin.evaluation.datasets.published import DATASETS
from qsit_plugin.scores import COLUMNS, flat, score_row
from qsit_plugin.training.synthetic.distortions import KINDS
from tests.docs.quotes import (
    FENCE,
    OPTION,
    ROOT,
    anchors,
    commands,
    documents,
    files,
    found,
    known,
    module_file,
    options,
    quotes,
    resolved,
    sources,
    text_of,
)

COMFYUI = {"--novram", "--disable-metadata", "--cache-none", "--cache-classic"}
"""Options of ComfyUI's own that docs/comfyui.md and the help pages speak of."""

PYIQAS = {"tests/test_metric_general.py"}
"""Files of pyiqa's own sdist."""

OTHERS = {"pip", "torchrun", "accelerate", "pytest", "pyiqa", "mkdocs"}
"""Programs whose options are not ours."""


def every_option():
    def walk(command):
        yield from known(command)
        for inner in getattr(command, "commands", {}).values():
            yield from walk(inner)

    return set(walk(typer.main.get_command(app)))


def test_there_are_documents_to_look_at():
    assert len(documents()) > 40
    assert sum(1 for _ in commands("qsit")) > 80


def test_every_command_of_qsit_that_a_document_shows_is_there_with_its_options():
    wrong = []
    for quote, words in commands("qsit"):
        command, left, there = resolved(words)
        unknown = [option for option in options(left) if option not in known(command)]
        if not there or unknown:
            wrong.append(f"{quote}  ({unknown or left[0]})")
    assert not wrong, "\n".join(wrong)


def test_every_option_that_a_sentence_names_is_one_of_qsit_or_of_a_script():
    ours = every_option() | COMFYUI | set(re.findall(r"\"(--[a-z][\w-]*)\"", sources()))
    pieces = [quote for quote in quotes() if not quote.block and quote.text.split()[0] not in OTHERS]
    wrong = [
        str(quote)
        for quote in pieces
        for option in OPTION.findall(quote.text)
        if option[:2] == "--" and option not in ours
    ]
    assert not wrong, "\n".join(wrong)


def source_of(words):
    """(the file of ``python -m name`` or ``python path``, its arguments); (None, []) where it is not one of ours."""
    if words[:1] == ["-m"]:
        module = words[1]
        if module.startswith("qsit_plugin."):
            return module_file(module) or module_file(f"{module}.__main__"), words[2:]
        path = ROOT / module.replace(".", "/")
        inner = next((p for p in (path.with_suffix(".py"), path / "__main__.py") if p.is_file()), path)
        return (inner if module.split(".")[0] in ("tests", "benchmarks") else None), words[2:]
    return (ROOT / words[0], words[1:]) if words[0].endswith(".py") else (None, [])


def test_every_script_that_a_document_runs_is_there_with_its_options():
    wrong, seen = [], 0
    for quote, words in commands("python"):
        path, arguments = source_of(words)
        if path is None:
            continue
        seen += 1
        if not path.is_file():
            wrong.append(f"{quote}  (no {path.relative_to(ROOT)})")
        else:
            text = "".join(inner.read_text("utf-8") for inner in path.parent.rglob("*.py"))
            known = set(re.findall(r'"(--[a-z][\w-]*)"', text))
            known |= {"--" + name.replace("_", "-") for name in re.findall(r"^    (\w+): ", text, re.MULTILINE)}
            wrong += [f"{quote}  ({option})" for option in options(arguments) if option not in known]
    assert seen > 20
    assert not wrong, "\n".join(wrong)


def test_every_source_file_that_a_document_names_is_there():
    last = {name.rsplit("/", 1)[-1] for name in files()}
    wrong = []
    for quote in quotes():
        for name in re.findall(r"[\w./*-]+\.py\b", quote.text):
            if "/" not in name:
                there = name in last or name == "*_node.py"
            else:
                folders = (ROOT, quote.document.parent, ROOT / "qsit_plugin")
                there = any((folder / name).is_file() for folder in folders)
            if not there and name not in PYIQAS:
                wrong.append(f"{quote}  ({name})")
    assert not wrong, "\n".join(sorted(set(wrong)))


def test_every_folder_of_the_checkout_that_a_document_names_is_there():
    roots = {name.split("/")[0] for name in files() if "/" in name}
    wrong = []
    for quote in quotes():
        for name in re.findall(r"(?<![\w./-])([a-z_]+/[\w./-]*)", quote.text):
            path = ROOT / name.rstrip("/.")
            if name.split("/")[0] in roots and not quote.block and name not in PYIQAS and not path.exists():
                wrong.append(f"{quote}  ({name})")
    assert not wrong, "\n".join(sorted(set(wrong)))


def test_every_name_below_qsit_plugin_that_a_document_gives_is_there():
    wrong = []
    for quote in quotes():
        wrong += [
            f"{quote}  ({name})" for name in re.findall(r"\bqsit_plugin(?:\.\w+)+", quote.text) if not found(name)
        ]
        for module, names in re.findall(r"from (qsit_plugin[\w.]*) import ([\w, ]+)", quote.text):
            wrong += [f"{quote}  ({n})" for n in re.findall(r"\w+", names) if not found(f"{module}.{n}")]
    for document in documents():
        listed = r"(`\w+`(?:,\s`\w+`)*(?:\s(?:and|or)\s`\w+`)?)\s(?:in|\()\s?`(qsit_plugin[.\w]+)`"
        for names, module in re.findall(listed, text_of(document)):
            if module_file(module):
                given = re.findall(r"`(\w+)`", names)
                wrong += [f"{document.name}: {module}.{name}" for name in given if not found(f"{module}.{name}")]
    assert not wrong, "\n".join(sorted(set(wrong)))


def test_every_link_leads_to_a_file_and_a_heading_that_are_there():
    wrong = []
    for document in documents():
        for target in re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", text_of(document))):
            name, _, heading = target.partition("#")
            path = document.parent / name if name else document
            if re.match(r"\w+:", target):
                continue
            if not path.exists() or (heading and heading not in anchors(path)):
                wrong.append(f"{document.relative_to(ROOT)}: {target}")
    assert not wrong, "\n".join(wrong)


def test_every_environment_variable_of_ours_that_a_document_names_is_read():
    named = {name for document in documents() for name in re.findall(r"\bQSIT_[A-Z_]+\b", text_of(document))}
    assert len(named) > 2
    assert not [name for name in sorted(named - {"QSIT_PYIQA_SDIST"}) if f'"{name}"' not in sources()]  # a test's own


def test_the_documented_row_of_qsit_score_is_the_one_that_is_written():
    guide = (ROOT / "docs" / "command-line.md").read_text("utf-8")
    row = json.loads(next(block for block in FENCE.findall(guide) if '"score"' in block))
    assert list(score_row(row["path"], row, row["profile"])) == list(row)
    assert tuple(flat(row)) == COLUMNS[:-1]


def test_every_extra_that_a_document_installs_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = {
        extra
        for quote in quotes()
        for found in re.findall(r"\[([a-z,]+)\]\"", quote.text)
        for extra in found.split(",")
    }
    assert len(named) > 3
    assert named <= set(project["optional-dependencies"])


def test_what_the_documents_count_is_that_many():
    words = "seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen twenty"
    words = {word: number for number, word in enumerate(words.split(), 7)}
    counted = {
        r"(\w+)\s(?:ComfyUI\s)?nodes\b": len(list((ROOT / "nodes").glob("*_node.py"))),
        r"(\w+)\sexample\sworkflows": len(list((ROOT / "example_workflows" / "api").glob("*.json"))),
        r"(\w+)\ssynthetic\sdistortions": len(KINDS),
        r"(\w+)\srated\sdatasets": len(DATASETS),
    }
    for pattern, count in counted.items():
        said = [word.lower() for document in documents() for word in re.findall(pattern, text_of(document))]
        numbers = [words[word] for word in said if word in words]
        assert numbers and set(numbers) == {count}, pattern
