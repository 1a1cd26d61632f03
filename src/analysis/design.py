"""The trials of each row: tuning on validation rows first, then the replicates that are tested.

A row is a generator: it yields the trials that it needs next, and goes on once all of them have
ended. So a loop that knows nothing of tuning can run many rows side by side, and a plan can walk
through a study without training anything.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan

from src.analysis.record import Candidate, Replicate, Row
from src.analysis.settings import Settings, spell
from src.analysis.study import Study, Variant
from src.analysis.trials import Outcome, Work, join_labels, name_task_scores
from src.analysis.tuning import Tuner, draw_weights

Steps = Generator[list[Work], Mapping[str, Outcome], None]
Tries = Generator[list[Work], Mapping[str, Outcome], dict[str, Settings]]


@dataclass(frozen=True)
class Maker:
    """Makes what a row needs, and knows what the study does not.

    Attributes:
        trial: (variant, settings, seed, fold, tests, label) -> the trial.
        ensemble: (members' outcomes by key, label) -> the trial that averages them.
        tuner: (row, fold) -> its tuner.
        monitors: {task: (metric, 1 where more is better and -1 where less is)}.
    """

    trial: Callable[[Variant, Settings, int, int | None, bool, str], Work]
    ensemble: Callable[[Mapping[str, Outcome], str], Work]
    tuner: Callable[[str, int | None], Tuner]
    monitors: dict[str, tuple[str, int]]


def make_row(variant: Variant) -> Row:
    """Returns the row of a variant, which has no trials yet."""
    settings = {key: spell(value) for key, value in variant.settings.items()}
    if variant.reference:
        settings["reference"] = variant.reference
    if variant.ensemble > 1:
        settings["ensemble"] = str(variant.ensemble)
    return {
        "name": variant.name,
        "role": variant.role,
        "settings": settings,
        "candidates": [],
        "replicates": [],
    }


def carry_out(study: Study, variant: Variant, fold: int | None, make: Maker, row: Row) -> Steps:
    """Tunes a row on one fold, and trains its replicates there.

    Args:
        study: The study.
        variant: The row's variant.
        fold: The fold that tests; None where the data have one split.
        make: Makes trials.
        row: The row of the record, which grows as trials end.
    """
    tasks = list(make.monitors)
    chosen: dict[str, Settings] = {task: {} for task in tasks}
    if study.tuning is not None and not variant.reference:
        chosen = yield from tune(study, variant, fold, make, row)
    if variant.tries_weights and chosen:
        chosen = yield from tune_weights(study, variant, fold, make, row, chosen[tasks[0]])
    # without a candidate that has trained there is nothing to repeat
    if chosen:
        yield from repeat(study, variant, fold, make, row, chosen)


# -- tuning ----------------------------------------------------------------------------------------
def tune(study: Study, variant: Variant, fold: int | None, make: Maker, row: Row) -> Tries:
    """Tries the candidates of a tuner, with the first seed, on validation rows.

    Returns:
        {task: the settings that suit it best}; empty where every candidate has failed.
    """
    tuner = make.tuner(variant.name, fold)
    tried: list[Candidate] = []
    scores: list[dict[str, float]] = []
    while not tuner.done:
        asked = []
        while (settings := tuner.ask()) is not None:
            asked.append(settings)
        assert asked, "a tuner that is not done proposes something once it knows all scores"
        works = [make_candidate(study, variant, settings, fold, make) for settings in asked]
        outcomes = yield works

        for settings, work in zip(asked, works, strict=True):
            outcome = outcomes[work.key]
            candidate = note_candidate(settings, work, fold, outcome)
            tuner.tell(settings, candidate["score"])
            tried.append(candidate)
            scores.append(score_tasks(outcome, make))
    row["candidates"] += tried
    return choose(tried, scores, variant.by_task, list(make.monitors))


def tune_weights(
    study: Study, variant: Variant, fold: int | None, make: Maker, row: Row, settings: Settings
) -> Tries:
    """Tries vectors of fixed weights; the plain sum is the first of them.

    Args:
        study: The study.
        variant: The row's variant.
        fold: The fold that tests.
        make: Makes trials.
        row: The row of the record.
        settings: The settings that suit the plain sum best.
    """
    vectors = draw_weights(list(make.monitors), study.weights - 1)
    options = [settings, *(settings | {"model.weights": weights} for weights in vectors)]
    works = [make_candidate(study, variant, option, fold, make) for option in options]
    outcomes = yield works

    tried = []
    scores = []
    for option, work in zip(options, works, strict=True):
        outcome = outcomes[work.key]
        tried.append(note_candidate(option, work, fold, outcome))
        scores.append(score_tasks(outcome, make))
    # the plain sum was tried before, and is chosen anew
    known = {work.key for work in works}
    row["candidates"] = [one for one in row["candidates"] if one["trial"] not in known]
    for earlier in row["candidates"]:
        if earlier["fold"] == fold:
            earlier["chosen"] = []
    row["candidates"] += tried
    return choose(tried, scores, variant.by_task, list(make.monitors))


def make_candidate(
    study: Study, variant: Variant, settings: Settings, fold: int | None, make: Maker
) -> Work:
    """Returns a trial of tuning."""
    label = join_labels([variant.name, describe_settings(settings), name_fold(fold)])
    return make.trial(variant, settings, study.seeds[0], fold, False, label)


def note_candidate(settings: Settings, work: Work, fold: int | None, outcome: Outcome) -> Candidate:
    """Returns the entry of a candidate in the record."""
    score = outcome.results["validation"].get("val/score") if outcome.results else None
    if score is not None and isnan(score):
        score = None
    return {
        "settings": {key: spell(value) for key, value in settings.items()},
        "trial": work.key,
        "fold": fold,
        "score": score,
        "chosen": [],
    }


def score_tasks(outcome: Outcome, make: Maker) -> dict[str, float]:
    """Returns the validation scores of a trial's tasks; none where it has failed."""
    return name_task_scores(outcome.results, make.monitors) if outcome.results else {}


def choose(
    tried: Sequence[Candidate],
    scores: Sequence[Mapping[str, float]],
    by_task: bool,
    tasks: Sequence[str],
) -> dict[str, Settings]:
    """Chooses candidates by their validation scores, and marks them.

    Args:
        tried: The candidates.
        scores: {task: score} of each.
        by_task: Whether each task has its own choice.
        tasks: The tasks.

    Returns:
        {task: settings}; empty where every candidate has failed.
    """
    chosen: dict[str, Settings] = {}
    for task in tasks:
        best: Candidate | None = None
        highest = 0.0
        for candidate, by_name in zip(tried, scores, strict=True):
            score = by_name.get(task) if by_task else candidate["score"]
            # the first of equals stays
            if score is not None and (best is None or score > highest):
                best = candidate
                highest = score
        if best is None:
            continue
        best["chosen"].append(task)
        chosen[task] = dict(best["settings"])
    # a task that no candidate could score goes with the first of the others
    if chosen:
        for task in tasks:
            chosen.setdefault(task, next(iter(chosen.values())))
    return chosen


# -- replicates ------------------------------------------------------------------------------------
def repeat(
    study: Study,
    variant: Variant,
    fold: int | None,
    make: Maker,
    row: Row,
    chosen: Mapping[str, Settings],
) -> Steps:
    """Trains a row with the chosen settings, once for each seed, and tests it.

    A reference has no seeds: it is fitted once.
    """
    seeds = study.seeds[:1] if variant.reference else study.seeds
    settings = unite(chosen)
    if variant.ensemble > 1:
        yield from repeat_ensemble(study, variant, fold, make, row, settings[0][0])
        return

    works: list[Work] = []
    replicates: list[Replicate] = []
    for seed in seeds:
        trials: dict[str, str] = {}
        for option, tasks in settings:
            words = join_labels([variant.name, f"seed {seed}", name_fold(fold)])
            work = make.trial(variant, option, seed, fold, True, words)
            works.append(work)
            trials |= dict.fromkeys(tasks, work.key)
        replicates.append({"seed": seed, "fold": fold, "trials": trials})
    row["replicates"] += replicates
    yield works


def repeat_ensemble(
    study: Study,
    variant: Variant,
    fold: int | None,
    make: Maker,
    row: Row,
    settings: Settings,
) -> Steps:
    """Trains the members of ensembles, each with seeds of its own, and averages them."""
    groups: list[list[Work]] = []
    for seed in study.seeds:
        members = []
        for number in range(variant.ensemble):
            member = seed * variant.ensemble + number
            words = join_labels([variant.name, f"member seed {member}", name_fold(fold)])
            members.append(make.trial(variant, settings, member, fold, False, words))
        groups.append(members)
    outcomes = yield [work for members in groups for work in members]

    averages = []
    for seed, members in zip(study.seeds, groups, strict=True):
        keys = [work.key for work in members]
        replicate: Replicate = {"seed": seed, "fold": fold, "trials": {}, "members": keys}
        row["replicates"].append(replicate)
        # an ensemble of fewer members would be another row
        if all(outcomes[key].status == "finished" for key in keys):
            words = join_labels([variant.name, f"seed {seed}", name_fold(fold)])
            work = make.ensemble({key: outcomes[key] for key in keys}, words)
            averages.append(work)
            replicate["trials"] = dict.fromkeys(make.monitors, work.key)
        else:
            failed = next(key for key in keys if outcomes[key].status != "finished")
            replicate["trials"] = dict.fromkeys(make.monitors, failed)
    yield averages


def unite(chosen: Mapping[str, Settings]) -> list[tuple[Settings, list[str]]]:
    """Returns each distinct choice of settings with its tasks."""
    united: list[tuple[Settings, list[str]]] = []
    for task, settings in chosen.items():
        for known, tasks in united:
            if known == settings:
                tasks.append(task)
                break
        else:
            united.append((settings, [task]))
    return united


def describe_settings(settings: Settings) -> str:
    """Returns settings in words, by the last part of each key."""
    return " ".join(f"{key.rpartition('.')[2]}={spell(value)}" for key, value in settings.items())


def name_fold(fold: int | None) -> str:
    """Returns a fold in words; "" where there is none."""
    return "" if fold is None else f"fold {fold}"
