"""What the model of a run must not be used for, as far as the files of the run tell. Imports no TensorFlow."""

from collections.abc import Iterator

from trainer.evaluation.comparison import MODEL
from trainer.evaluation.verdict import NO_BETTER, UNKNOWN, WORSE, name_of
from trainer.reporting.contents import Contents

_FEW_LISTS = 500
_LOW_COVERAGE = 0.3


def limits_of(contents: Contents) -> list[str]:
    """Returns the limits of a run, a paragraph each, the gravest first."""
    return [*_of_the_quality(contents), *_of_the_evaluation(contents), *_of_the_data(contents)]


def _of_the_quality(contents: Contents) -> Iterator[str]:
    if contents.data.source == "synthetic":
        yield (
            "Do not use it for anything but trying out this software: its ratings are synthetic. Nobody has watched "
            "these films."
        )
    if contents.split is None:
        yield "Do not use it unless another run of the same config was tested: this run held out no ratings."
        return
    uses = {
        "catalogue": "Do not use it to recommend items from the catalogue",
        "rated": "Do not use it to put given items in the order in which a user will like them",
    }
    for protocol, use in uses.items():
        found = contents.verdict.protocols.get(protocol)
        if found is None and (protocol == "catalogue" or contents.data.has_ratings):
            yield f"{use} before this was measured. This run did not measure it."
        elif found and found.outcome in (NO_BETTER, WORSE):
            simple = name_of(found.baseline)
            yield f"{use}: it is {found.outcome} than {simple}, which needs no model."
        elif found and found.outcome == UNKNOWN:
            yield f"{use}: the test does not tell whether it is any good at that."
    yield from _of_groups(contents)


def _of_groups(contents: Contents) -> Iterator[str]:
    """Groups of users for whom a baseline has a higher mean."""
    found = contents.verdict.protocols.get("catalogue")
    if not found or not contents.breakdowns:
        return
    activity = contents.breakdowns["user_activity"]
    for group, described in activity["groups"].items():
        model, baseline = (activity["scorers"][scorer][group][found.metric] for scorer in (MODEL, found.baseline))
        if found.is_better and model <= baseline:
            yield (
                f"Do not rely on it for users with {described['min_train_ratings']:,} to "
                f"{described['max_train_ratings']:,} ratings: for them, {name_of(found.baseline)} is at least as good "
                f"({found.metric} {baseline:.4f} against {model:.4f})."
            )
    coverage = next((value for name, value in contents.recommendations[MODEL].items() if "coverage" in name), 1.0)
    if coverage < _LOW_COVERAGE:
        yield (
            f"Do not use it where every item has to get its chance: in the test, {coverage:.0%} of the items were "
            "recommended to at least one user."
        )


def _of_the_evaluation(contents: Contents) -> Iterator[str]:
    if contents.split == "validation":
        yield (
            "Do not quote its metrics as those of new data: there was no test split, so the ratings that chose the "
            "exported step are those that it was evaluated on."
        )
    for protocol, found in contents.verdict.protocols.items():
        if found.difference.num_queries < _FEW_LISTS:
            yield (
                f"Do not make much of small differences: the {protocol} metrics come from "
                f"{found.difference.num_queries:,} lists."
            )
    if contents.split and contents.config.split.method == "random" and _period(contents):
        yield (
            "Do not read its metrics as a forecast: ratings were held out at random, so some that it learnt from are "
            "later than those of the test. With config.split.method = time, the test is the future."
        )
    if contents.split:
        yield (
            "Do not take the test for an experiment with users: it only knows the items that users have chosen "
            "themselves, and not what they would have thought of others."
        )


def _of_the_data(contents: Contents) -> Iterator[str]:
    data = contents.data
    yield (
        f"Do not use it for new items: it ranks the {data.num_items:,} items of the training ratings, and no others. "
        "New items need a new training."
    )
    if contents.config.history.encoder == "none":
        yield (
            f"Do not use it for new users: it knows {data.num_users:,} users by their ids. To all others it recommends "
            "the most popular items."
        )
    else:
        yield (
            "Do not expect anything personal for users without a history: to them it recommends the most popular items."
        )
    if not data.has_ratings:
        yield "Do not ask it what users dislike: every row is an event, and each event counts as liked."
    if period := _period(contents):
        yield f"Do not use it for the taste of other times without a new test: its ratings are from {period}."
    yield (
        "Do not read a score as a rating or a probability, or compare the scores of different users: only the order of "
        "the items of one user was tested."
    )
    yield (
        "Do not publish this page, or the folder of the run, unless the ratings are public: this page has what some "
        "users have rated, and the folder has the ids and the ratings of all users."
    )


def _period(contents: Contents) -> str:
    days = [day for split in contents.data.splits for day in (split.first_day, split.last_day) if day]
    return f"{min(days)} to {max(days)}" if days else ""
