"""Turns that fit any scene of their kind: greetings, openings, afterthoughts and closings, with their own slots.

They hold times, days and prices too: a summary that picks any number out of the dialogue is wrong.
"""

from dataclasses import dataclass

from study.dialogues.facts import DAYS, EVENING, MORNING, SMALL_PRICES, STREETS
from study.dialogues.template import Aside, Slots


@dataclass(frozen=True, slots=True)
class SmallTalk:
    """What two people say around a plot.

    greetings: put before the first turn. openings, afterthoughts: asides before and after the core lines.
    closings: a single last turn by a.
    """

    greetings: tuple[str, ...]
    openings: tuple[Aside, ...]
    afterthoughts: tuple[Aside, ...]
    closings: tuple[str, ...]


SLOTS: Slots = {
    "talk_day": DAYS,
    "talk_wake": MORNING,
    "talk_late": EVENING,
    "talk_price": SMALL_PRICES,
    "talk_street": STREETS,
    "talk_snack": ("a bagel", "some soup", "a pretzel", "fried rice", "a peach", "plum cake", "a hot chocolate"),
    "talk_weather": ("rain", "fog", "wind", "heat", "snow", "hail", "frost"),
    "talk_show": (
        "the cycling",
        "that cooking show",
        "the quiz",
        "the old western",
        "the ice skating",
        "the chess final",
    ),
    "talk_noise": ("a car alarm", "a barking dog", "the thunder", "the bin lorry", "a street party", "an owl"),
    "talk_shop": ("a chemist", "a cash machine", "a post office", "a florist", "a book shop", "a taxi rank"),
}

AMONG_FRIENDS = SmallTalk(
    greetings=("", "hi {b}!", "hey {b}.", "hello {b}.", "{b}, a quick word.", "there you are, {b}."),
    openings=(
        Aside(-1, "{talk_noise} woke me at {talk_wake} today.", "poor you. I slept right through it."),
        Aside(-1, "did you watch {talk_show} on {talk_day}?", "only the end, I fell asleep before {talk_late}."),
        Aside(-1, "what {talk_weather} we are having!", "I know, and they expect more of it on {talk_day}."),
        Aside(-1, "I paid {talk_price} for {talk_snack} just now.", "that is a scandal, {a}."),
        Aside(-1, "is that a new jacket?", "yes, I found it in a sale on {talk_street}."),
        Aside(-1, "you look tired, {b}.", "{talk_show} went on until {talk_late}, and I could not stop watching."),
        Aside(-1, "have you eaten yet?", "I had {talk_snack} on the way, thanks."),
        Aside(-1, "how was your {talk_day}?", "quiet. The {talk_weather} kept me indoors."),
    ),
    afterthoughts=(
        Aside(
            3,
            "did you hear that {talk_street} is closed again?",
            "yes, they are digging up the pipes until {talk_day}.",
        ),
        Aside(3, "do you still have my umbrella?", "it is in my hall. I keep forgetting it."),
        Aside(3, "I might buy {talk_snack} now.", "get it on {talk_street}, it costs only {talk_price} there."),
        Aside(3, "let us hope the {talk_weather} stops soon.", "they said so on the radio, but who believes them?"),
        Aside(
            3, "shall we watch {talk_show} together some time?", "maybe, but not on {talk_day}, I am always worn out."
        ),
        Aside(3, "my phone is nearly dead, by the way.", "then I will not ring you before {talk_wake}."),
    ),
    closings=(
        "good. Talk to you later!",
        "you are a star, {b}.",
        "I knew I could count on you.",
        "fine with me. Bye!",
        "then that is settled.",
        "wonderful, thanks a lot.",
    ),
)

AT_THE_COUNTER = SmallTalk(
    greetings=("", "hello.", "good morning!", "excuse me.", "hi there.", "good day."),
    openings=(
        Aside(-1, "are you open yet? The sign says {talk_wake}.", "come in, we are always a bit early."),
        Aside(-1, "it is busy here today.", "it is always like this on {talk_day}, I am afraid."),
        Aside(-1, "what {talk_weather} out there!", "yes, you are my first visitor who is not complaining."),
        Aside(-1, "I hope I am not too late.", "not at all, we close at {talk_late}."),
        Aside(-1, "your place was hard to find.", "people often miss the turn at {talk_street}. How can I help?"),
        Aside(-1, "the parking outside costs {talk_price}!", "it is free behind the building, for next time."),
    ),
    afterthoughts=(
        Aside(3, "is there {talk_shop} near here?", "yes, on {talk_street}, just past the lights."),
        Aside(3, "are you open on {talk_day} as well?", "only until noon."),
        Aside(3, "may I leave my bag here for a minute?", "of course, put it behind the desk."),
        Aside(3, "somebody left a scarf on that chair.", "thank you, it has been there since {talk_day}."),
        Aside(3, "where could I get {talk_snack}?", "the kiosk sells it for {talk_price}, but it is not very good."),
        Aside(3, "do you take coins?", "as many as you like."),
    ),
    closings=(
        "thank you for your help.",
        "perfect. Goodbye!",
        "that is very kind of you.",
        "good, then I am off.",
        "thanks, have a nice day.",
        "great, that is all I needed.",
    ),
)
