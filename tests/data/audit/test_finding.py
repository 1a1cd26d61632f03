"""Findings as notes and flags."""

import shlex

import yaml

from src.data.audit.finding import Finding, Mend, sort_findings, write_list, write_notes


def of(severity, number=0):
    return Finding(severity, "leak", f"sentence {severity} {number}")


def test_names_come_through_the_shell_and_yaml_as_they_are():
    names = ["income", "first name", "a,b", "it's", "null", "12", "[x]", "né"]
    mend = Mend((("drop", write_list(names)),), "leaves them out")
    flag, value = shlex.split(mend.write_flags())
    assert flag == "--data.drop"
    assert yaml.safe_load(value) == names
    assert write_list(["copy"]) == "[copy]"


def test_a_note_names_the_way_out():
    mend = Mend((("group", "who"), ("stratify", "null")), "keeps rows of one together")
    finding = Finding("medium", "groups", "rows share 'who'", mend)
    assert (
        finding.write_note() == "note: rows share 'who': --data.group who --data.stratify null "
        "keeps rows of one together"
    )
    below = finding.below("sources.people")
    assert below.write_note().startswith(
        "note: people: rows share 'who': --data.sources.people.group who "
    )
    assert of("low").write_note() == "note: sentence low 0"


def test_a_training_prints_the_worst_three():
    findings = [of("low"), of("medium", 1), of("high"), of("medium", 2), of("medium", 3)]
    assert [finding.severity for finding in sort_findings(findings)] == [
        *("high", "medium", "medium", "medium", "low")
    ]
    assert write_notes(findings) == [
        "note: sentence high 0",
        "note: sentence medium 1",
        "note: sentence medium 2",
        "note: 1 more: python -m src.audit with the same --data flags lists it",
    ]
    assert write_notes([of("low")]) == []
