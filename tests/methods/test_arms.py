"""Arms by name: patterns, changes after ``@``, and what a recipe may not name; the same way for every method."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from vivavoce.data.acceptance import AcceptRules
from vivavoce.methods import opd_arms
from vivavoce.methods.review_arms import STANDARD, ReviewArm, arms_of
from vivavoce.protocols.peer_review import Options
from vivavoce.train.settings import TreeDPOSettings, TwoTaskSettings

TEACHERS = ["ada", "bob", "cyd"]


def named(*names: str, own: dict[str, ReviewArm] | None = None, **review: object) -> dict[str, ReviewArm]:
    listed = arms_of(names, own or {}, TEACHERS, Options.model_validate(review))
    assert all(name == one.name for name, one in listed.items())
    return {name: one.options for name, one in listed.items()}


def test_leave_out_is_an_arm_for_each_teacher_without_its_texts_and_its_reviews() -> None:
    arms = named("leave_out")
    assert list(arms) == ["without:ada", "without:bob", "without:cyd"]
    assert arms["without:bob"].teachers == arms["without:bob"].reviewers == ["ada", "cyd"]


def test_judge_is_an_arm_for_each_reviewer_and_keeps_the_recipes_rules_otherwise() -> None:
    arms = named("judge", reviewers=["bob", "cyd"])
    assert list(arms) == ["judge:bob", "judge:cyd"]
    rules = AcceptRules(threshold=4, answer_check=True)
    assert arms["judge:bob"].accepts(rules) == rules.model_copy(update={"reviewers": ["bob"]})
    assert arms["judge:bob"].teachers is None


def test_arms_of_other_losses_change_how_is_trained_and_nothing_else() -> None:
    arms, dpo, two = named("orpo", "simpo", "kto", "preferred", "reviewed"), TreeDPOSettings(), TwoTaskSettings()
    changed = {name: arm.preference(dpo) for name, arm in arms.items()}
    assert {name: how.objective for name, how in changed.items()} == {
        "orpo": "orpo", "simpo": "simpo", "kto": "kto", "preferred": "pairs", "reviewed": "pairs",
    }  # fmt: skip
    assert (changed["orpo"].nll_weight, changed["simpo"].beta) == (1.0, 2.0)
    assert changed["preferred"] == dpo
    released = {
        name: arm.two_task(two) for name, arm in named("released_loss", "released_unpadded", "reviewed").items()
    }
    assert {name: (how.normalisation, how.padding) for name, how in released.items()} == {
        "released_loss": ("micro_batch", "learnt"),
        "released_unpadded": ("micro_batch", "none"),
        "reviewed": ("step_tokens", "none"),
    }
    (spread,) = named("each_epoch@exams=4").values()
    assert spread.two_task(TwoTaskSettings(max_steps=20)).max_steps == 5
    assert spread.two_task(TwoTaskSettings(epochs=10)).epochs == 2.5


def test_single_is_an_arm_for_each_author() -> None:
    assert list(named("single", authors=["cyd"])) == ["single:cyd"]


def test_keys_of_an_arm_are_changed_after_its_name_and_nothing_else_is() -> None:
    arms = named("reviewed@alpha=0.25,score_weighted=true", "reviewed@accept.threshold=4", "reviewed")
    half, strict, plain = arms.values()
    assert list(arms) == ["reviewed@alpha=0.25,score_weighted=true", "reviewed@accept.threshold=4", "reviewed"]
    assert half == plain.model_copy(update={"alpha": 0.25, "score_weighted": True})
    assert (strict.accept, strict.alpha) == (AcceptRules(threshold=4), None)
    assert plain == STANDARD["reviewed"]


def test_a_change_to_a_pattern_is_made_to_each_of_its_arms_and_own_arms_can_be_changed_too() -> None:
    arms = named("judge@alpha=0", "mine@exams=3", own={"mine": ReviewArm(fresh=True)})
    assert {name: arm.alpha for name, arm in arms.items()} == {
        "judge:ada@alpha=0": 0, "judge:bob@alpha=0": 0, "judge:cyd@alpha=0": 0, "mine@exams=3": None,
    }  # fmt: skip
    assert arms["mine@exams=3"] == ReviewArm(fresh=True, exams=3)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("revewed", "unknown arm `revewed`, did you mean `reviewed`"),
        ("reviewed@alhpa=0.25", "alhpa"),
        ("reviewed@alpha=2", "less than or equal to 1"),
        ("reviewed@alpha", "needs a key and a value"),
        ("score_weighted@accept.threshold=4", "no key `threshold`"),
        ("refreshed@replay=0.5", "replay needs fresh"),
    ],
)
def test_a_name_or_a_change_that_makes_no_sense_is_refused(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        named(name)


def test_every_method_has_the_same_syntax() -> None:
    arms = opd_arms.arms_of(["debate_opd@tau=0.1,rounds=2", "reverse_kl@objective.beta=0.3", "opd"], {}, TEACHERS)
    assert list(arms) == [
        "debate_opd@tau=0.1,rounds=2", "reverse_kl@objective.beta=0.3", "opd:ada", "opd:bob", "opd:cyd",
    ]  # fmt: skip
    changed, kl, *_ = (one.options for one in arms.values())
    assert isinstance(changed, opd_arms.OnPolicyArm)
    assert isinstance(kl, opd_arms.OnPolicyArm)
    assert (changed.tau, changed.rounds) == (0.1, 2)
    assert kl.objective == {"divergence": "reverse_kl", "beta": 0.3}
    with pytest.raises(ValidationError):
        opd_arms.arms_of(["debate_opd@tua=0.1"], {}, TEACHERS)
