"""The workflows on GitHub call the lanes of .ci/run; CITATION.cff names whom pyproject.toml names."""

import re
import tomllib

import yaml

from tests.packaging.environments import CHECKOUT

RUN = (CHECKOUT / ".ci" / "run").read_text(encoding="utf-8")
LANES = set(re.search(r"^ +([a-z |]+)\) ;;$", RUN, re.MULTILINE).group(1).split(" | "))
WORKFLOWS = sorted((CHECKOUT / ".github" / "workflows").glob("*.yml"))


def jobs(workflow):
    return yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"].values()


def called(job):
    """The lanes that a job runs, those of its matrix included."""
    matrix = job.get("strategy", {}).get("matrix", {})
    of_matrix = {*matrix.get("lane", []), *(row["lane"] for row in matrix.get("include", []))}
    for step in job.get("steps", []):
        for lane in re.findall(r"\.ci/run (.+)", step.get("run", "")):
            yield from of_matrix if "matrix.lane" in lane else lane.split()


def test_every_lane_is_a_function_and_is_called_on_github():
    assert {lane for workflow in WORKFLOWS for job in jobs(workflow) for lane in called(job)} == LANES
    assert set(re.findall(r"^(\w+)\(\) {$", RUN, re.MULTILINE)) >= LANES


def test_what_a_fork_lacks_is_only_needed_after_a_job_that_a_fork_skips():
    needy = [path for path in WORKFLOWS if re.search(r"secrets\.|id-token|environment:", path.read_text("utf-8"))]
    assert [path.stem for path in needy] == ["publish"]
    first = [job for path in needy for job in jobs(path) if "needs" not in job]
    assert first and all("!github.event.repository.fork" in job.get("if", "") for job in first)


def test_the_citation_names_the_author_and_the_address_of_the_project_file():
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = yaml.safe_load((CHECKOUT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["authors"] == project["authors"]
    assert citation["repository-code"] == project["urls"]["Repository"]
