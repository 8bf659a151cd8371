"""Free time: concert tickets, a sport to take up, a film."""

from study.dialogues.facts import (
    BIG_PRICES,
    DAYS,
    EVENING,
    HIGH_PRICES,
    LOW_PRICES,
    MEETING_PLACES,
    MORNING,
    SMALL_PRICES,
)
from study.dialogues.template import Aside, Plot, Scene, Told

_SPORTS = (
    "rowing", "tennis", "climbing", "archery", "boxing", "badminton", "ice skating", "fencing", "yoga", "surfing",
    "table tennis", "riding", "canoeing",
)  # fmt: skip
_FILMS = (
    "The Glass Orchard", "Midnight Ferry", "Seven Umbrellas", "A Stone for Anna", "The Paper Duke", "Northern Salt",
    "Goodbye, Sparrow", "Robots of Spring", "The Last Postman", "Double Moon", "Captain Velvet", "Ashes and Oranges",
)  # fmt: skip

CONCERT = Plot(
    name="concert",
    slots={
        "event": (
            "the jazz festival",
            "Swan Lake",
            "Hamlet",
            "the circus",
            "Carmen",
            "the comedy night",
            "Macbeth",
            "a magic show",
        ),
        "day": DAYS,
        "new_day": DAYS,
        "full_price": BIG_PRICES,
        "price": LOW_PRICES,
        "seller": ("{c}", "a colleague", "{c}'s brother", "a student", "the drummer", "an usher", "{c}'s aunt"),
        "fate": ("fell ill", "has to work", "broke a leg", "must fly to Rome", "lost interest", "had a baby"),
        "seats": (
            "in the third row",
            "on the balcony",
            "near the exit",
            "behind a pillar",
            "in a box",
            "at the front",
            "on the left side",
        ),
        "place": MEETING_PLACES,
        "time": EVENING,
    },
    lines=(
        (
            "there are tickets for {event} on {day}, {full_price} each. Shall we go?",
            "I want to see {event} with you on {day}. It is {full_price} each.",
        ),
        (
            "I can't pay {full_price}! But {seller} {fate} and sells two for {new_day}, {seats}.",
            "{full_price} is crazy. Listen, {seller} {fate} and has two for {new_day}, {seats}.",
        ),
        (
            "what do the two cost? And when would we meet?",
            "{new_day} is fine with me. What do we pay, and where do I find you?",
        ),
        (
            "{price} for both. Let us meet at {place} at {time}.",
            "only {price} for the two of us. Be at {place} at {time}.",
        ),
    ),
    asides=(
        Aside(0, "who is on the poster?", "some woman with a violin."),
        Aside(0, "will there be a break?", "a short one, just enough for a drink."),
        Aside(1, "my ears still ring from the last time.", "mine, too, but it was worth it."),
        Aside(2, "do you want to eat first?", "no, I never eat before a show."),
        Aside(3, "what will you wear?", "my old boots, as usual."),
        Aside(3, "are cameras allowed?", "no, they look into every bag."),
    ),
    summaries=(
        (
            "{a} and {b} see {event} on {new_day} {seats}, for {price}, since {seller} {fate}. They meet at "
            "{place}, {time}."
        ),
        "{b} finds {full_price} too much for {event} and has cheaper seats from {seller}: {new_day}, {price} for two.",
        "{seller} {fate}, so {a} and {b} get {new_day} tickets {seats} for {price}, meeting at {place}.",
        "not {day} but {new_day} is when {a} joins {b} for {event}; {seller} sells the seats at {price}.",
    ),
)

SPORT = Plot(
    name="sport",
    slots={
        "sport": _SPORTS,
        "other_sport": _SPORTS,
        "ailment": (
            Told("my shoulder is weak", "{b}'s shoulder is weak"),
            Told("I get dizzy", "{b} gets dizzy"),
            Told("I hate being wet", "{b} hates being wet"),
            Told("my knees are bad", "{b}'s knees are bad"),
            Told("I broke a rib that way", "{b} broke a rib that way"),
            Told("I am much too slow", "{b} is much too slow"),
        ),
        "goal": (
            Told("lose some weight", "lose weight"),
            Told("get out more", "get out more"),
            Told("sleep better", "sleep better"),
            Told("meet new people", "meet people"),
            Told("get stronger arms", "get stronger arms"),
            Told("forget the office", "forget the office"),
        ),
        "club": (
            "the Falcons",
            "Gym Forty",
            "the Otters",
            "Studio Delta",
            "the university",
            "Club Meridian",
            "Riverside Hall",
        ),
        "day": DAYS,
        "time": MORNING,
        "fee": HIGH_PRICES,
        "gear": ("gloves", "a helmet", "shoes", "a towel", "a bag", "a racket", "goggles"),
        "price": SMALL_PRICES,
    },
    lines=(
        (
            "I want to {goal}. Will you take up {other_sport} with me?",
            "let us start {other_sport} together. I have to {goal}.",
        ),
        (
            "{other_sport} is not for me, {ailment}. I could imagine {sport}.",
            "{other_sport} is out, {ailment}. If it has to be sport, then {sport}.",
        ),
        (
            "{sport} is fine, as long as we begin soon. I know that {club} offers it.",
            "I would try {sport} as well. They teach it at {club}, I think.",
        ),
        (
            "then I meet you there on {day} at {time}. The course costs {fee}, I saw it online.",
            "the course is {fee}. There is a lesson on {day} at {time}, let us go to that.",
        ),
    ),
    asides=(
        Aside(0, "did your doctor tell you to?", "no, my trousers did."),
        Aside(0, "are you serious?", "very, I even bought {gear}."),
        Aside(1, "running costs nothing.", "and it is the most boring thing in the world."),
        Aside(2, "do we need {gear}?", "they lend you everything for {price}."),
        Aside(3, "and afterwards we have cake.", "I thought this was about our health."),
        Aside(3, "shall I ask {c} as well?", "please don't, {c} always wins."),
    ),
    summaries=(
        (
            "{a} hopes to {goal} through {other_sport}, but {ailment}. {a} and {b} start {sport} on {day} at "
            "{time} for {fee}."
        ),
        "{ailment}, so {other_sport} is out; {sport} at {club} suits them both, on {day}, {time}.",
        "to {goal}, {a} joins {b} for {sport} at {club}: {day}, {time}, {fee} for the course.",
        "{sport}, not {other_sport}, is what {a} tries with {b} at {club} for {fee}, since {ailment}.",
    ),
)

FILM = Plot(
    name="film",
    slots={
        "film": _FILMS,
        "other_film": _FILMS,
        "blame": (
            "is too long",
            "has no jokes",
            "got awful reviews",
            "has subtitles",
            "is full of blood",
            "made {c} cry",
        ),
        "praise": (
            "has a great chase",
            "was shot near here",
            "won a prize",
            "is about a cook",
            "has a clever ending",
            "stars a famous singer",
        ),
        "cinema": (
            "the Rex",
            "Cinema Orion",
            "the Plaza",
            "Studio Apollo",
            "the Lux",
            "Filmhouse Two",
            "Cinema Tivoli",
        ),
        "day": DAYS,
        "time": EVENING,
        "drive": (
            Told("take my car", "drives"),
            Told("pay for both of us", "pays"),
            Told("bring popcorn", "brings popcorn"),
            Told("get the seats", "gets the seats"),
            Told("ask {c} along", "asks {c} along"),
            Told("reserve a box", "reserves a box"),
        ),
        "price": SMALL_PRICES,
    },
    lines=(
        (
            "let us see {other_film} on {day}. I need some fun.",
            "are you free on {day}? They are showing {other_film}.",
        ),
        (
            "{other_film} {blame}. I would rather see {film}, it {praise}.",
            "they say that {other_film} {blame}. {film} {praise}, why don't we watch it?",
        ),
        (
            "you have convinced me. Which cinema, and what time?",
            "if you like. Where is it on, and when does it start?",
        ),
        (
            "{cinema}, at {time}. I will {drive}.",
            "at {time}, in {cinema}. Let me {drive} this time.",
        ),
    ),
    asides=(
        Aside(0, "not at home, on the sofa?", "no, my screen is too small."),
        Aside(0, "how did the driving lesson go?", "I touched a tree, but only gently."),
        Aside(1, "you always choose.", "because I read the papers, {a}."),
        Aside(2, "are you still afraid of the dark?", "that was one time, in a cave."),
        Aside(3, "the seats there are so hard.", "take a pillow, I always do."),
        Aside(3, "a coffee there costs {price}.", "then we have ours before."),
    ),
    summaries=(
        "{a} suggests {other_film}, but it {blame}. They see {film} at {cinema}, {day}, {time}; {b} {drive}.",
        "{b} prefers {film}, which {praise}, to {other_film}. {cinema} shows it to them {day} at {time}; {b} {drive}.",
        "{film} {praise}, so {a} gives up {other_film} and meets {b} on {day}, {time}, in {cinema}; {b} {drive}.",
        "since {other_film} {blame}, {a} lets {b} choose {film} at {cinema}, {day}, {time}; {b} {drive}.",
    ),
)

LEISURE = Scene("leisure", (CONCERT, SPORT, FILM))
