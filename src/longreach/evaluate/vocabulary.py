"""Names, numbers and ids that nothing else knows, drawn from a seeded generator."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from random import Random
from typing import Literal, TypeAlias

from longreach.errors import InputError

ValueKind: TypeAlias = Literal["numbers", "words", "uuids"]
_ADJECTIVES = (
    "amber ancient arid bitter blunt brave brisk broken calm careful cheerful chilly clever cloudy coastal copper crisp"
    " curious damp daring distant dusty eager early eastern faded faithful famous fearless fertile fierce foggy fragile"
    " frozen gentle gilded gloomy golden graceful grand hasty hidden hollow honest humble idle inner iron jolly lively"
    " lonely loud loyal lunar marble mellow merry mighty misty modest mossy narrow nimble noble northern patient placid"
    " polished proud quiet rapid restless rugged rusty sandy secret shallow silent silver sleepy slender smoky solemn"
    " southern spotted stormy sturdy sunny swift tender thirsty timid tranquil upper vivid wandering weary western wild"
    " windy wooden"
).split()
_NOUNS = (
    "acorn anchor anvil apple arrow badger barrel basket beacon bell bridge bucket butterfly cabin candle canoe canyon"
    " castle cedar chimney clock cloud comet compass copper coral cottage crane cricket crown dagger daisy desert dove"
    " drum eagle ember falcon feather fern fiddle forest fountain fox garden glacier goose granite hammer harbor hawk"
    " heron hill island ivy jacket kettle kite ladder lagoon lantern lemon lighthouse lily lizard locket maple marsh"
    " meadow mill mirror moon mountain needle oak ocean orchard otter owl paddle parrot pebble pepper pillow pine"
    " planet plum pocket pond prairie quarry quill rabbit raven reef ribbon river robin rocket saddle sail shell"
    " shepherd spider spoon spruce squirrel stable star statue stone swan table temple thistle tiger tower trumpet"
    " tulip turtle valley violin wagon walnut whale willow window wolf"
).split()
_ONSETS = "b d f g h k l m n p r s t v z br dr gr kl pl st tr".split()
_VOWELS = "a e i o u".split()
_CODAS = ["", "", "", "n", "r", "l", "s", "m"]


def distinct(draw: Callable[[], str]) -> Iterator[str]:
    """What `draw` gives, each only once. Raises InputError where it gives nothing new any more."""
    seen: set[str] = set()
    while True:
        for _ in range(1000):
            found = draw()
            if found not in seen:
                seen.add(found)
                yield found
                break
        else:
            raise InputError(f"there are no more than about {len(seen)} different names of this kind: ask for fewer")


def names(random: Random) -> Iterator[str]:
    """Such as "brisk amber falcon"; half a million of them."""
    return distinct(lambda: f"{random.choice(_ADJECTIVES)} {random.choice(_ADJECTIVES)} {random.choice(_NOUNS)}")


def values(kind: ValueKind, random: Random) -> Iterator[str]:
    """Numbers of seven digits, made-up words, or UUIDs; no two alike."""
    if kind == "numbers":
        return distinct(lambda: str(random.randrange(10**6, 10**7)))
    return distinct(
        lambda: made_up(random) if kind == "words" else str(uuid.UUID(int=random.getrandbits(128), version=4))
    )


def variables(random: Random) -> Iterator[str]:
    """Names of variables: five capital letters."""
    return distinct(lambda: "".join(random.choice("BCDFGHJKLMNPQRSTVWXZ") for _ in range(5)))


def made_up(random: Random, syllables: int = 3) -> str:
    """A word of no language that can be spoken."""
    return "".join(
        random.choice(_ONSETS) + random.choice(_VOWELS) + (random.choice(_CODAS) if last else "")
        for last in (at == syllables - 1 for at in range(syllables))
    )
