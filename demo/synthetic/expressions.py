"""The language of the demo world: every expression is a statement that holds for exactly its target in that video.

The kinds are those of `records.Expression`. Places and sizes are spoken of only where they hold with a margin in every
frame, so that a right answer is never a matter of taste.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from glus.demo.synthetic.objects import COLOURS, FIELDS, SHAPES, DemoScene
from glus.demo.synthetic.twins import THEN, parts_of

KINDS = ("look", "motion", "relation", "several", "reasoning")

MARGIN = 8.0
AREA_RATIO = 1.4

NOUNS = ("object", "thing", "one")
PLURALS = {"circle": "circles", "ring": "rings", "bar": "bars", "pillar": "pillars", "cross": "crosses"}
SIZE_WORDS = {"small": ("small", "little"), "large": ("large", "big")}
MOTION_WORDS = {
    "left": ("moving left", "that moves left", "moving to the left", "going left"),
    "right": ("moving right", "that moves right", "moving to the right", "going right"),
    "up": ("moving up", "that moves up", "moving upwards", "going up"),
    "down": ("moving down", "that moves down", "moving downwards", "going down"),
    "still": ("staying still", "that stays still", "that does not move", "not moving"),
}
MOTION_OF_SEVERAL = {
    "left": ("moving left", "going left"),
    "right": ("moving right", "going right"),
    "up": ("moving up", "going up"),
    "down": ("moving down", "going down"),
    "still": ("staying still", "not moving"),
}
#: Motions that change, by their second part: it stops, it begins to move, it turns.
CHANGES = {
    "stops": ("that moves {0} and then stops", "that moved {0} and then stopped", "moving {0}, then staying still"),
    "begins": ("that stays still and then moves {1}", "that waits, then moves {1}"),
    "turns": ("that moves {0} and then {1}", "that moved {0} and then {1}", "moving {0}, then {1}"),
}
ARRIVALS = ("that comes in last", "that enters last", "that appears last")
#: Axis and sign: the target's coordinate times the sign is the smallest.
PLACES = {
    "left": (0, 1, ("the {} furthest to the left", "the leftmost {}", "the {} on the far left")),
    "right": (0, -1, ("the {} furthest to the right", "the rightmost {}", "the {} on the far right")),
    "top": (1, 1, ("the highest {}", "the topmost {}", "the uppermost {}")),
    "bottom": (1, -1, ("the lowest {}", "the bottommost {}", "the lowermost {}")),
}
EXTREMES = {
    "largest": ("the largest object", "the biggest one", "the object larger than all others"),
    "smallest": ("the smallest object", "the smallest one", "the object smaller than all others"),
}
KNOWLEDGE = {
    ("colour", "red"): ("the object with the colour of a ripe tomato", "which one is coloured like a fire engine?"),
    ("colour", "green"): ("the object with the colour of grass", "the thing coloured like a frog"),
    ("colour", "blue"): ("the object with the colour of a clear sky", "which one is coloured like the sea?"),
    ("colour", "yellow"): ("the object coloured like a ripe banana", "which one has the colour of a lemon?"),
    ("colour", "purple"): ("the object with the colour of lavender", "the thing coloured like dark grapes"),
    ("colour", "orange"): ("the object with the colour of a carrot", "which one is coloured like a pumpkin?"),
    ("shape", "circle"): ("the shape of a coin", "which one looks like a full moon?"),
    ("shape", "ring"): ("the shape of a doughnut", "which one has a hole in it?"),
    ("shape", "bar"): ("the one that lies like a sleeping dog", "which one is far wider than high?"),
    ("shape", "pillar"): ("the one that stands like a lamp post", "which one is far higher than wide?"),
    ("shape", "cross"): ("which one looks like a plus sign?", "the shape of the sign for adding numbers"),
    ("motion", "up"): ("which one rises like a balloon?", "the one that behaves like smoke"),
    ("motion", "down"): ("which one falls like a stone?", "the one that behaves like rain"),
    ("motion", "still"): ("the one that behaves like a parked car", "which one rests like a rock?"),
}
#: What is said with a motion; the last two only where twins need it.
MOTION_LOOKS: tuple[tuple[str, ...], ...] = ((), ("shape",), ("size",), ("colour",), ("colour", "shape"))
LOOKS = (
    ("shape",),
    ("colour",),
    ("colour", "shape"),
    ("size", "shape"),
    ("size", "colour"),
    ("size",),
    ("size", "colour", "shape"),
)


@dataclass(frozen=True)
class DemoExpression:
    """A text and the objects that it names. `object_ids` ascend; they are empty (and `kind` is "") where the text names
    a coloured shape that the video does not show."""

    text: str
    object_ids: tuple[int, ...]
    kind: str
    reasoning: bool = False


def all_expressions(rng: np.random.Generator, scene: DemoScene) -> tuple[DemoExpression, ...]:
    """Everything that this language says of a scene, each statement in one of its wordings, no text twice.

    Every object has at least two expressions of its own: where two share shape, colour and size, they move differently.
    """
    found: dict[str, DemoExpression] = {}
    writer = _Writer(rng, scene)
    for kind, sentences in (
        ("look", writer.look()),
        ("motion", writer.motion()),
        ("motion", writer.arrivals()),
        ("relation", writer.extremes()),
        ("relation", writer.places()),
        ("several", writer.several()),
        ("several", writer.pairs()),
        ("reasoning", writer.reasoning()),
        ("", writer.absent()),
    ):
        for text, indices in sentences:
            ids = tuple(sorted(scene.objects[index].id for index in indices))
            found.setdefault(text, DemoExpression(text, ids, kind, kind == "reasoning"))
    return tuple(found.values())


_Sentences = Iterator[tuple[str, Sequence[int]]]


class _Writer:
    """Writes the sentences of one scene. Each method yields (text, indices of the objects that it holds for)."""

    def __init__(self, rng: np.random.Generator, scene: DemoScene) -> None:
        self._rng = rng
        self._scene = scene
        self._all = range(len(scene.objects))
        self._attributes = [{field: getattr(thing, field) for field in FIELDS} for thing in scene.objects]
        self._seen = scene.areas > 0
        # A place must hold both for the complete shapes and for what is seen of them.
        complete = [thing.centres for thing in scene.objects]
        self._positions: NDArray[np.float64] = np.array([complete, scene.centroids])
        self._margin = MARGIN * scene.config.unit

    def look(self) -> _Sentences:
        for index in self._all:
            for fields in LOOKS:
                given = self._given(index, fields)
                if self._holders(given) != [index]:
                    continue
                wordings = _wordings(given, self._size_word(given), self._pick(NOUNS))
                last = fields == LOOKS[-1]
                for choice in self._rng.permutation(len(wordings))[: 2 if last else 1]:
                    yield wordings[choice], [index]

    def motion(self) -> _Sentences:
        for index in self._all:
            for fields in MOTION_LOOKS if self._is_twin(index) else MOTION_LOOKS[:3]:
                given = self._given(index, fields)
                motion = self._scene.objects[index].motion
                if self._holders(given | {"motion": motion}) == [index]:
                    wordings = MOTION_WORDS[motion] if motion in MOTION_WORDS else _changes(motion)
                    yield f"{self._name(given)} {self._pick(wordings)}", [index]
                    if fields == MOTION_LOOKS[-1]:
                        # Another wording of what always holds, so that a twin has two expressions.
                        yield f"{self._name(given)} {self._pick(wordings)}", [index]

    def arrivals(self) -> _Sentences:
        """The one twin that comes in after the first eighth of the video, where all others are there from the start."""
        first = np.where(self._seen.any(axis=1), self._seen.argmax(axis=1), self._scene.config.frames)
        for index in self._all:
            others = [first[other] for other in self._all if other != index]
            if self._is_twin(index) and first[index] >= self._scene.config.frames / 8 and not any(others):
                given = self._given(index, ("colour", "shape"))
                yield f"{self._name(given)} {self._pick(ARRIVALS)}", [index]

    def extremes(self) -> _Sentences:
        """Largest and smallest: by the complete shape and by the most that is ever seen of it."""
        measures = (
            np.array([thing.area for thing in self._scene.objects]),
            self._scene.areas.max(axis=1).astype(float),
        )
        if len(self._all) < 2:
            return
        for index in self._all:
            others = [other for other in self._all if other != index]
            if all(measure[index] >= AREA_RATIO * measure[others].max() for measure in measures):
                yield self._pick(EXTREMES["largest"]), [index]
            if all(AREA_RATIO * measure[index] <= measure[others].min() for measure in measures):
                yield self._pick(EXTREMES["smallest"]), [index]

    def places(self) -> _Sentences:
        scopes: list[Mapping[str, str]] = [{}, *({"shape": shape} for shape in SHAPES)]
        for scope in scopes:
            members = self._holders(scope)
            for axis, sign, wordings in PLACES.values():
                for index in members if len(members) > 1 else ():
                    others = [other for other in members if other != index]
                    if all(self._is_before(index, other, axis, sign) for other in others):
                        yield self._pick(wordings).format(scope.get("shape", NOUNS[0])), [index]

    def several(self) -> _Sentences:
        for fields in ((), ("shape",), ("colour",), ("size",), ("colour", "shape")):
            for given in self._values(fields):
                members = self._holders(given)
                nouns = PLURALS[given["shape"]] if "shape" in given else "objects"
                adjectives = " ".join(part for part in (self._size_word(given), given.get("colour", "")) if part)
                plain = f"{adjectives} {nouns}".strip()
                if len(members) > 1 and given:
                    yield self._pick(("the {}", "all {}", "all the {}")).format(plain), members
                for motion, words in MOTION_OF_SEVERAL.items():
                    moving = self._holders(given | {"motion": motion})
                    if 1 < len(moving) < len(members) or (1 < len(moving) and not given):
                        yield self._pick(("the {}", "all {}")).format(plain) + " " + self._pick(words), moving
        for motion in MOTION_OF_SEVERAL:
            moving = self._holders({"motion": motion})
            if len(moving) > 1:
                yield f"everything {MOTION_WORDS[motion][1]}", moving

    def pairs(self) -> _Sentences:
        pairs = list(combinations((index for index in self._all if not self._is_twin(index)), 2))
        for choice in self._rng.permutation(len(pairs))[:2]:
            first, second = pairs[choice] if self._rng.random() < 0.5 else pairs[choice][::-1]
            joint = self._pick((" and ", " together with "))
            yield f"{self._unique_name(first)}{joint}{self._unique_name(second)}", [first, second]

    def reasoning(self) -> _Sentences:
        for (field, value), wordings in KNOWLEDGE.items():
            members = self._holders({field: value})
            if len(members) == 1:
                yield self._pick(wordings), members

    def absent(self) -> _Sentences:
        """Coloured shapes that are not there, of which at least one attribute mostly is."""
        shown = {(thing.colour, thing.shape) for thing in self._scene.objects}
        pairs = [(colour, shape) for colour in COLOURS for shape in SHAPES if (colour, shape) not in shown]
        near = [(c, s) for c, s in pairs if any(c == colour or s == shape for colour, shape in shown)]
        for choice in self._rng.permutation(len(near))[:3]:
            phrase = " ".join(near[choice])
            yield self._pick((f"the {phrase}", phrase, _with_article(phrase))), []

    def _pick(self, wordings: Sequence[str]) -> str:
        return wordings[int(self._rng.integers(len(wordings)))]

    def _is_twin(self, index: int) -> bool:
        return len(self._holders(self._given(index, ("size", "colour", "shape")))) > 1

    def _given(self, index: int, fields: Sequence[str]) -> dict[str, str]:
        return {field: self._attributes[index][field] for field in fields}

    def _values(self, fields: Sequence[str]) -> list[dict[str, str]]:
        """The distinct values that objects of this scene have in `fields`, in the order of the objects."""
        distinct = {tuple(self._given(index, fields).values()): self._given(index, fields) for index in self._all}
        return list(distinct.values())

    def _holders(self, given: Mapping[str, str]) -> list[int]:
        """Indices of the objects that have all the given attributes.

        None where a motion is given that is a part of another such object's: a text would fit both.
        """
        assert given.keys() <= set(FIELDS)
        look = {field: value for field, value in given.items() if field != "motion"}
        alike = [index for index in self._all if look.items() <= self._attributes[index].items()]
        if "motion" not in given:
            return alike
        motion, moving = given["motion"], [self._scene.objects[index].motion for index in alike]
        if any(motion != other and motion in parts_of(other) for other in moving):
            return []
        return [index for index, other in zip(alike, moving, strict=True) if motion == other]

    def _size_word(self, given: Mapping[str, str]) -> str:
        return self._pick(SIZE_WORDS[given["size"]]) if "size" in given else ""

    def _name(self, given: Mapping[str, str]) -> str:
        return _wordings(given, self._size_word(given), self._pick(NOUNS))[0]

    def _unique_name(self, index: int) -> str:
        """The red circle: shape and colour, with the size where those do not decide."""
        given = self._given(index, ("colour", "shape"))
        if len(self._holders(given)) > 1:
            given = self._given(index, ("size", "colour", "shape"))
        return self._name(given)

    def _gap(self, first: int, second: int, axis: int, sign: int) -> NDArray[np.float64]:
        """By how many pixels the first comes before the second, [2, frames where both are seen]."""
        both = self._seen[first] & self._seen[second]
        places = self._positions[..., axis]
        gap: NDArray[np.float64] = sign * (places[:, second] - places[:, first])[:, both]
        return gap

    def _is_before(self, first: int, second: int, axis: int, sign: int) -> bool:
        """Before it by the margin in every frame that shows both, and those are a quarter of the clip."""
        gap = self._gap(first, second, axis, sign)
        least = self._scene.config.frames / 4
        return gap.shape[1] >= least and bool((gap >= self._margin).all())


def _wordings(given: Mapping[str, str], size: str, noun: str) -> list[str]:
    """The ways to name an object by its look; the first one is the plain noun phrase."""
    noun = given.get("shape", noun)
    adjectives = [word for word in (size, given.get("colour", "")) if word]
    plain = " ".join([*adjectives, noun])
    wordings = [f"the {plain}", _with_article(plain)]
    if adjectives:
        wordings.append(f"the {noun} that is {' and '.join(adjectives)}")
    return wordings


def _changes(motion: str) -> tuple[str, ...]:
    """How a motion that changes is said."""
    first, second = motion.split(THEN)
    kind = "stops" if second == "still" else "begins" if first == "still" else "turns"
    return tuple(wording.format(first, second) for wording in CHANGES[kind])


def _with_article(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase
