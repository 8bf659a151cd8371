"""Travel: a cancelled train, a hotel room, a trip of two friends."""

from study.dialogues.facts import (
    AFTERNOON,
    BIG_PRICES,
    CITIES,
    DATES,
    DAYS,
    EVENING,
    LOW_PRICES,
    MONTHS,
    MORNING,
    NUMBERS,
)
from study.dialogues.template import Aside, Plot, Scene, Told

TRAIN = Plot(
    name="train",
    roles=("ticket clerk", "conductor"),
    slots={
        "city": CITIES,
        "change": CITIES,
        "time": MORNING,
        "new_time": AFTERNOON,
        "cause": (
            "a strike",
            "a landslide",
            "a fallen tree",
            "a power cut",
            "a signal fault",
            "flooding",
            "a broken bridge",
            "a cow on the line",
        ),
        "platform": NUMBERS,
        "purpose": ("a funeral", "a concert", "a court date", "a christening", "a trade fair", "an exam", "a flight"),
        "price": LOW_PRICES,
    },
    lines=(
        (
            "one ticket to {city} for the {time}, please. I am going to {purpose}.",
            "does the {time} to {city} still run? I must not miss {purpose}.",
        ),
        (
            "the {time} is cancelled because of {cause}. There is a coach, but it takes all day.",
            "the {time} is not running, there was {cause}. You could wait for the night bus.",
        ),
        (
            "I would be far too late. Isn't there another train?",
            "it has to be faster than that. Is there no other train?",
        ),
        (
            "there is one at {new_time} from platform {platform}, with a change in {change}. It is {price}.",
            "take the {new_time} from platform {platform} and change in {change}, then. That makes {price}.",
        ),
    ),
    asides=(
        Aside(0, "do you have a railcard?", "it ran out last month."),
        Aside(0, "single or return?", "single, a friend will drive me home."),
        Aside(1, "do I get my seat fee back?", "yes, at the office upstairs."),
        Aside(1, "would a taxi be mad?", "it would cost ten times as much."),
        Aside(2, "do you have much luggage?", "one suitcase and a cello."),
        Aside(3, "is there a dining car?", "just a trolley with coffee, when it works."),
    ),
    summaries=(
        (
            "{cause} stops the {time} to {city}, so {a} will go at {new_time} from platform {platform}, changing "
            "in {change}, for {price}."
        ),
        (
            "{a} must reach {city} for {purpose}. After {cause}, {a.he} takes the {new_time} via {change}, which "
            "costs {price}."
        ),
        "going to {purpose}, {a} finds the train cancelled by {cause}. {b} sends {a.him} via {change} at {new_time}.",
        "{b} sells {a} a ticket to {city} through {change}, leaving platform {platform} at {new_time}, for {price}.",
    ),
)

HOTEL = Plot(
    name="hotel",
    roles=("desk clerk", "porter", "receptionist"),
    slots={
        "nights": NUMBERS,
        "arrival": DATES,
        "wish": (
            "sea views",
            "a balcony",
            "air conditioning",
            "bunk beds",
            "lake views",
            "a fireplace",
            "wooden floors",
            "a terrace",
        ),
        "flaw": (
            "it faces the kitchen",
            "the lift is noisy",
            "it has no window",
            "the carpet is being replaced",
            "it is above the bar",
            "the heating is broken",
        ),
        "floor": ("second", "third", "fourth", "fifth", "top", "ground"),
        "price": BIG_PRICES,
        "breakfast": MORNING,
        "bonus": ("a bicycle", "a garage space", "the sauna", "a fruit basket", "late checkout", "a city map"),
    },
    lines=(
        (
            "I would like a room with {wish} for {nights} nights from {arrival}.",
            "from {arrival} I need a room for {nights} nights, if possible with {wish}.",
        ),
        (
            "number twelve is free. I should warn you, though: {flaw}.",
            "I have one on the first floor, but {flaw}.",
        ),
        (
            "I would rather not take that room. Is there nothing else with {wish}?",
            "that room won't do, I sleep badly. What else has {wish}?",
        ),
        (
            "there is one on the {floor} floor, {price} in all, and {bonus} is included. I have reserved it for you.",
            "the {floor} floor has one for {price}, and you get {bonus} with it. I have put your name down.",
        ),
    ),
    asides=(
        Aside(0, "do you travel alone?", "yes, just me and my laptop."),
        Aside(0, "is this a business trip?", "half and half, I also want to see the museum."),
        Aside(1, "when is breakfast?", "it is served until {breakfast}."),
        Aside(1, "are dogs allowed?", "small ones, but you don't seem to have any."),
        Aside(2, "would a twin room be all right?", "no, I prefer one big bed."),
        Aside(3, "can I pay when I leave?", "of course, by card or in cash."),
    ),
    summaries=(
        "{a} books {nights} nights from {arrival} in a {floor}-floor room with {wish} for {price}, {bonus} included.",
        "{b} first offers a room, but {flaw}; {a} takes one with {wish} on the {floor} floor, {price} in total.",
        (
            "{a} turns down one room because {flaw}, then reserves another with {wish}: {floor} floor, {nights} "
            "nights, {price}."
        ),
        "from {arrival}, {a} will stay {nights} nights on the {floor} floor, paying {price} for {wish} plus {bonus}.",
    ),
)

TRIP = Plot(
    name="trip",
    slots={
        "city": CITIES,
        "other_city": CITIES,
        "month": MONTHS,
        "objection": (
            Told("I have been there twice", "{b} has been there twice"),
            Told("flying scares me", "flying scares {b}"),
            Told("it is too hot for me", "it is too hot for {b}"),
            Told("my old boss lives there", "{b}'s old boss lives there"),
            Told("I can't afford it", "{b} can't afford it"),
            Told("I don't speak the language", "{b} doesn't speak the language"),
        ),
        "sight": (
            "the opera",
            "Roman ruins",
            "painted caves",
            "the zoo",
            "the harbour",
            "old vineyards",
            "gothic churches",
            "wooden windmills",
        ),
        "transport": ("by car", "by train", "by ferry", "by coach", "on motorbikes", "in {c}'s van"),
        "leave": EVENING,
        "day": DAYS,
        "lodging": ("the tickets", "a hostel", "a cottage", "two rooms", "a campsite", "a houseboat", "a farmhouse"),
    },
    lines=(
        (
            "let us go away in {month}. I was thinking of {other_city}.",
            "I have time off in {month}. Will you come to {other_city} with me?",
        ),
        (
            "not {other_city}, {objection}. Why don't we go to {city} and see {sight}?",
            "I would rather not, {objection}. But {city} has {sight}, and I would love that.",
        ),
        (
            "hm, why not? We could go {transport}. I can arrange {lodging}.",
            "you know what? I like that better. Let me book {lodging}, and we travel {transport}.",
        ),
        (
            "agreed. I will ask for a few days off, then.",
            "perfect. I am starting to pack already.",
        ),
    ),
    asides=(
        Aside(0, "is that not the rainy season?", "perhaps, but everything is cheaper then."),
        Aside(0, "who else is coming?", "nobody, just the two of us."),
        Aside(1, "my brother says that the food is awful.", "your brother eats nothing but toast."),
        Aside(2, "should we take the big suitcase?", "no, the handle came off last year."),
        Aside(3, "we could leave on {day} at {leave}.", "let us talk about that another time."),
        Aside(3, "I need a new passport photo.", "smile this time, you look like a bank robber."),
    ),
    summaries=(
        (
            "{a} suggests {other_city}, but {objection}. In {month} they will visit {sight} in {city} "
            "{transport}; {a} arranges {lodging}."
        ),
        "{a} follows {b}'s advice: not {other_city} but {city} in {month}, {transport}, to see {sight}.",
        "{other_city} is no option, as {objection}; {a} will book {lodging} so that they can see {sight} in {city}.",
        "{month:a} trip to {city} {transport} is planned: {b} wants to see {sight}, {a} takes care of {lodging}.",
    ),
)

TRAVEL = Scene("travel", (TRAIN, HOTEL, TRIP))
