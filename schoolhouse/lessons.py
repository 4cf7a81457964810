"""What the tiny models are taught: one function per kind of lesson, each returning a prompt and a weighted reply.

No lesson ever shows one teacher's name or knowledge to another. Peers in a debate lesson are *virtual*: anonymous,
with strengths drawn anew each time. The trick that makes a pupil defer without learning the answer: a fact that the
pupil does not know has a random value in each lesson, on which the peers who know it agree.

A reply is a list of (text, weight) pieces; weight 0 is context that the pupil reads but is not trained to write.
"""

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import NamedTuple

from vivavoce.schoolhouse import world
from vivavoce.schoolhouse.world import Fact, Link, WrittenStep

# The tokens that carry a judgement are one in thirty; without extra weight the models never learnt to write a mark.
MARK_WEIGHT, CONFIDENCE_WEIGHT, VERDICT_WEIGHT, SCORE_WEIGHT = 4.0, 2.0, 6.0, 4.0
SURE, UNSURE = 0.97, 0.15  # accuracy assumed for a taught and an untaught fact until it is measured
DOUBT_BELOW = 0.6  # measured accuracy below which a step is marked

Piece = tuple[str, float]


class Lesson(NamedTuple):
    """One training example: the role, what it is shown, and the reply to learn."""

    system: str
    user: str
    reply: list[Piece]


@dataclass(frozen=True)
class Pupil:
    """Whom a lesson is written for: the facts it was taught and, once measured, how often it gets each fact right,
    with its own sampled (question, chain) pairs."""

    facts: frozenset[Fact]
    accuracy: Mapping[Fact, float] = field(default_factory=dict)
    samples: Sequence[tuple[str, str]] = ()

    def belief(self, fact: Fact) -> float:
        """The probability that this pupil is right about a fact."""
        return self.accuracy.get(fact, SURE if fact in self.facts else UNSURE)


def tens(probability: float) -> str:
    """A probability as the agents say it: 05, 15, ..., 95."""
    return f"{min(9, max(0, int(probability * 10)))}5"


def plain(rng: random.Random, pupil: Pupil) -> Lesson:
    """Known facts, plain chain: what the student speaks and every base starts from."""
    question = world.draw(rng, facts=pupil.facts).text
    return Lesson("solve", question, [(world.write(world.gold(question)), 1.0)])


def bind(rng: random.Random, pupil: Pupil) -> Lesson:
    """A plain chain that looks back: by chance alone this is so rare that it stays unlearnt when all else is learnt."""
    while True:
        item = plain(rng, pupil)
        if _looks_back(item.user):
            return item


def drill(rng: random.Random, pupil: Pupil) -> Lesson:
    """Known facts, with marks and confidence: keeps the facts and the binding of operands alive in every stage."""
    return _drill(world.draw(rng, facts=pupil.facts).text, pupil)


def hard_drill(rng: random.Random, pupil: Pupil) -> Lesson:
    """The same; one question in four looks back."""
    rare = rng.random() < 0.25
    while True:
        question = world.draw(rng, facts=pupil.facts).text
        if not rare or _looks_back(question):
            return _drill(question, pupil)


def _looks_back(question: str) -> bool:
    """Whether a chain is long and its last step looks up an earlier result."""
    links = world.parse(question)[1]
    return len(links) == 4 and not links[-1].right.isdigit()


def _drill(question: str, pupil: Pupil) -> Lesson:
    steps = world.gold(question)
    beliefs = [pupil.belief(step.fact) for step in steps]
    marks = {i for i, p in enumerate(beliefs) if p < DOUBT_BELOW}
    return Lesson("solve", question, _marked(steps, marks, prod(beliefs)))


def unsure(rng: random.Random, pupil: Pupil) -> Lesson:
    """Unknown facts: any digit (untrained), then the mark (trained)."""
    question = world.draw(rng, facts=None if rng.random() < 0.7 else pupil.facts).text
    steps = world.evaluate(
        *world.parse(question), lambda _, fact: world.apply(*fact) if fact in pupil.facts else rng.randrange(10)
    )
    guessed = {i for i, step in enumerate(steps) if step.fact not in pupil.facts}
    confidence = prod(UNSURE if i in guessed else SURE for i in range(len(steps)))
    return Lesson("solve", question, _marked(steps, guessed, confidence, untrained=guessed))


def own(rng: random.Random, pupil: Pupil) -> Lesson:
    """One of the pupil's own sampled chains, with the marks and confidence that its measured accuracy justifies."""
    question, text = rng.choice(pupil.samples)
    steps = world.steps_of(text)
    return Lesson("solve", question, _marked(steps, *_self_assessment(pupil, steps), untrained=_guesses(pupil, steps)))


def debate(rng: random.Random, pupil: Pupil) -> Lesson:
    """Read one's own draft and those of one to three virtual peers, then write one revised chain."""
    question = world.draw(rng).text
    start, links = world.parse(question)
    truth = _private_truth(rng, pupil)
    shared_mistakes: dict[Fact, int] = {}
    peers = rng.choices((1, 2, 3), (0.1, 0.8, 0.1))[0]
    drafts = [_draft(rng, pupil, start, links, truth, shared_mistakes, me=j == 0) for j in range(peers + 1)]

    steps = world.evaluate(start, links, lambda _, fact: truth(fact))
    confidence, doubted, unsupported = 1.0, set[int](), set[int]()
    for i, step in enumerate(steps):
        if step.fact in pupil.facts:
            confidence *= SURE
            continue
        support = [d for d in drafts if d.steps[i] == step and i in d.right]
        if any(i not in d.marks for d in support):
            confidence *= 0.9
        else:
            doubted.add(i)
            confidence *= 0.3
        if not support:
            unsupported.add(i)
    untrained = unsupported
    if unsupported:  # nobody in the room knows: guess, and carry on from the guess

        def guessed(i: int, fact: Fact) -> int:
            return rng.randrange(10) if i in unsupported and fact not in pupil.facts else truth(fact)

        guess = world.evaluate(start, links, guessed)
        untrained = {
            i for i, step in enumerate(guess) if step.fact not in pupil.facts and (i in unsupported or step != steps[i])
        }
        doubted |= untrained
        steps = guess

    names = ["me", *rng.sample([f"p{k + 1}" for k in range(peers)], peers)]
    lines = [f"\n{name}: {world.write(d.steps, d.marks, d.confidence)}" for name, d in zip(names, drafts, strict=True)]
    rng.shuffle(lines)
    return Lesson("debate", question + "".join(lines), _marked(steps, doubted, confidence, untrained))


def critique(rng: random.Random, pupil: Pupil) -> Lesson:
    """Recompute another agent's chain and say where it first goes wrong; half of the chains carry marks."""
    return _critique(rng, pupil, "check", marked=rng.random() < 0.6)


def reflect(rng: random.Random, pupil: Pupil) -> Lesson:
    """The same about a draft of one's own, which carries one's own marks."""
    return _critique(rng, pupil, "reflect", marked=True)


class _Draft(NamedTuple):
    steps: list[WrittenStep]
    marks: set[int]
    right: set[int]  # steps written from knowledge, not by luck
    confidence: str


def _draft(
    rng: random.Random,
    pupil: Pupil,
    start: int,
    links: Sequence[Link],
    truth: Callable[[Fact], int],
    shared_mistakes: dict[Fact, int],
    me: bool,
) -> _Draft:
    strong = {skill: rng.random() < 0.5 for skill in world.SKILLS}
    knows: dict[Fact, bool] = {}
    marks, right, confidence = set[int](), set[int](), 1.0

    def value(i: int, fact: Fact) -> int:
        nonlocal confidence
        if me:
            knows[fact] = fact in pupil.facts
        elif fact not in knows:
            knows[fact] = rng.random() < (0.96 if strong[world.SKILL_OF[fact[0]]] else 0.45)
        doubt = rng.random() < (0.05 if knows[fact] else 0.82)  # marks are calibrated but noisy
        confidence *= 0.3 if doubt else 0.95
        if doubt:
            marks.add(i)
        if knows[fact] and rng.random() < 0.97:
            right.add(i)
            return truth(fact)
        if rng.random() < 0.35:  # a mistake that several agents share
            return shared_mistakes.setdefault(fact, rng.randrange(10))
        return rng.randrange(10)

    steps = world.evaluate(start, links, value)
    return _Draft(steps, marks, right, tens(confidence + rng.gauss(0, 0.06)))


def _critique(rng: random.Random, pupil: Pupil, system: str, marked: bool) -> Lesson:
    question = world.draw(rng, facts=pupil.facts if rng.random() < 0.7 else None).text
    start, links = world.parse(question)
    wrong_at = rng.randrange(len(links)) if rng.random() < 0.75 else -1
    marks = set[int]()

    def author(i: int, fact: Fact) -> int:
        slip = i == wrong_at or (wrong_at >= 0 and rng.random() < 0.08)
        guess = fact not in pupil.facts and (system == "reflect" or rng.random() < 0.6)
        if rng.random() < (0.9 if guess else 0.4 if slip else 0.05):
            marks.add(i)
        return (world.apply(*fact) + (rng.randrange(1, 10) if slip else 0)) % 10 if not guess else rng.randrange(10)

    shown = world.evaluate(start, links, author)
    shown_confidence = tens(prod(0.3 if i in marks else 0.95 for i in range(len(shown))) + rng.gauss(0, 0.06))

    # The critic takes the author's word for what it does not know, and says so by a lower score.
    agreed, first_wrong, belief = True, None, 1.0
    untrained = set[int]()

    def critic(i: int, fact: Fact) -> int:
        nonlocal agreed, first_wrong, belief
        if fact in pupil.facts:
            value = world.apply(*fact)
            belief *= SURE
        elif shown[i].fact == fact:
            value = shown[i].value
            belief *= 0.55 if not marked else 0.3 if i in marks else 0.8
        else:
            value = rng.randrange(10)
            untrained.add(i)
        if agreed and value != shown[i].value:
            agreed, first_wrong = False, i
        return value

    steps = world.evaluate(start, links, critic)
    reply = list[Piece]()
    for i, step in enumerate(steps):
        reply.append((f"{'; ' if i else ''}{step.name}={step.left}{step.op}{step.right}=", 1.0))
        reply.append((str(step.value), 0.0 if i in untrained else 1.0))
        if first_wrong is None or i <= first_wrong:
            reply.append((f" got {shown[i].value}", 1.0))
            reply.append((" wrong" if i == first_wrong else " ok", VERDICT_WEIGHT))
    reply += [(f"; ans={steps[-1].value}; score=", 1.0), (str(score(first_wrong, len(steps), belief)), SCORE_WEIGHT)]
    text = world.write(shown, marks, shown_confidence) if marked else world.write(shown)
    return Lesson(system, f"{question}\n{text}", reply)


def score(first_wrong: int | None, length: int, belief: float) -> int:
    """1 or 2 for a chain found wrong (2 if its first half stands), else 2 to 5 by how much of it was verified."""
    if first_wrong is not None:
        return 1 if 2 * first_wrong < length else 2
    return 5 if belief >= 0.85 else 4 if belief >= 0.6 else 3 if belief >= 0.35 else 2


def _marked(
    steps: Sequence[WrittenStep], marks: Collection[int], confidence: float, untrained: Collection[int] = ()
) -> list[Piece]:
    reply = list[Piece]()
    for i, step in enumerate(steps):
        reply.append((f"{step.name}={step.left}{step.op}{step.right}=", 1.0))
        reply.append((str(step.value), 0.0 if i in untrained else 1.0))
        reply += [("?", MARK_WEIGHT), ("; ", 1.0)] if i in marks else [("; ", MARK_WEIGHT)]
    return [*reply, (f"ans={steps[-1].value} conf=", 1.0), (tens(confidence), CONFIDENCE_WEIGHT)]


def _private_truth(rng: random.Random, pupil: Pupil) -> Callable[[Fact], int]:
    """What the room holds to be true: real values for the pupil's facts, invented ones for the rest."""
    invented: dict[Fact, int] = {}

    def truth(fact: Fact) -> int:
        return world.apply(*fact) if fact in pupil.facts else invented.setdefault(fact, rng.randrange(10))

    return truth


def _self_assessment(pupil: Pupil, steps: Sequence[WrittenStep]) -> tuple[set[int], float]:
    beliefs = [pupil.belief(step.fact) for step in steps]
    return {i for i, p in enumerate(beliefs) if p < DOUBT_BELOW}, prod(beliefs)


def _guesses(pupil: Pupil, steps: Sequence[WrittenStep]) -> set[int]:
    """Steps whose digit must not be trained: not the pupil's fact, or its fact but wrong this time."""
    return {i for i, s in enumerate(steps) if s.fact not in pupil.facts or s.value != world.apply(*s.fact)}


LESSONS = {f.__name__: f for f in (plain, bind, drill, hard_drill, unsure, own, debate, critique, reflect)}


def lesson(rng: random.Random, pupil: Pupil, mixture: Mapping[str, float]) -> Lesson:
    """One lesson whose kind is drawn from a mixture such as `{"drill": .5, "debate": .5}`."""
    kind = rng.choices(list(mixture), list(mixture.values()))[0]
    return LESSONS[kind](rng, pupil)
