"""Housing: a flat to let, a room to share, noise through the wall."""

from study.dialogues.facts import (
    AFTERNOON,
    DATES,
    DAYS,
    EVENING,
    LOW_PRICES,
    LOW_RENTS,
    MORNING,
    NUMBERS,
    RENTS,
    STREETS,
)
from study.dialogues.template import Aside, Plot, Scene, Told

VIEWING = Plot(
    name="viewing",
    roles=("agent", "landlord", "landlady"),
    slots={
        "street": STREETS,
        "other_street": STREETS,
        "rent": RENTS,
        "mine rule": (
            ("two cats", "pets are not allowed"),
            ("a piano", "music is forbidden"),
            ("a wheelchair", "there are forty steps"),
            ("three sons", "children are not welcome"),
            ("a motorbike", "there is no garage"),
            ("a drum kit", "the walls are thin"),
            ("a huge wardrobe", "the ceilings are low"),
        ),
        "feature": (
            "a big cellar",
            "two balconies",
            "a new kitchen",
            "a lift",
            "thick walls",
            "its own garden",
            "a carport",
        ),
        "day": DAYS,
        "time": AFTERNOON,
        "papers": (
            "a pay slip",
            "two references",
            "a bank statement",
            "a passport copy",
            "a work contract",
            "a deposit",
        ),
        "fee": LOW_PRICES,
    },
    lines=(
        (
            "I have come about the flat on {other_street}. I would move in with {mine}.",
            "is the flat on {other_street} still free? I have {mine}, I should add.",
        ),
        (
            "that flat will not work, {rule}. There is another one on {street} with {feature}.",
            "I am sorry, {rule} there. But I could show you a place with {feature} on {street}.",
        ),
        (
            "{street} sounds even better. What is the rent, and when can I see it?",
            "oh, I like {street}. How much is it, and could I have a look?",
        ),
        (
            "{rent} a month. Come on {day} at {time} and bring {papers}.",
            "it is {rent}. I will be there on {day} at {time}. Please bring {papers}.",
        ),
    ),
    asides=(
        Aside(0, "how did you hear of it?", "a colleague saw the sign."),
        Aside(0, "do you smoke?", "not since my wedding."),
        Aside(1, "is the area quiet?", "at night it is, by day there is a school."),
        Aside(1, "are there any fees?", "only {fee} for the new lock."),
        Aside(2, "how many of you are there?", "just me and a lot of books."),
        Aside(3, "who lives below?", "a retired sailor, a very polite man."),
    ),
    summaries=(
        "{a} has {mine} and {rule} on {other_street}, so {b} will show {a.him} a flat on {street} on {day} at {time}.",
        "{b} offers {a} a flat with {feature} on {street} for {rent} a month; {a} can see it on {day} with {papers}.",
        "{rule} on {other_street}. {a} will view {street} on {day}, {time}, where {feature} and {rent} rent await.",
        "on {day} at {time}, {a} looks at {street}, {rent} a month, as {mine} and {other_street} do not go together.",
    ),
)

ROOM = Plot(
    name="room",
    slots={
        "rent": LOW_RENTS,
        "other_rent": RENTS,
        "date": DATES,
        "other_date": DATES,
        "duty": (
            "water the plants",
            "carry down rubbish",
            "clean all windows",
            Told("feed my parrot", "feed {b}'s parrot"),
            "sweep the stairs",
            "buy coffee",
            "defrost the fridge",
            "wash up daily",
        ),
        "ban": (
            "guests at night",
            "candles",
            "shoes indoors",
            "loud phone calls",
            "frying fish",
            "smoking",
            "trumpet practice",
        ),
        "flaw": (
            "is rather dark",
            "faces the railway",
            "has no heating",
            "is next to the lift",
            "needs paint",
            "is tiny",
        ),
        "bring": (
            "a sofa",
            "two bookcases",
            "a fridge",
            "several carpets",
            "eight chairs",
            "a hammock",
            "six palms",
        ),
        "late": EVENING,
    },
    lines=(
        (
            "I would like the room in your flat. Is {other_rent} right?",
            "you are looking for a flatmate, I hear. Is the room {other_rent}?",
        ),
        (
            "the room was {other_rent}, but it {flaw}, so I only ask {rent}. You could have it from {other_date}.",
            "I only ask {rent}, because it {flaw}. It is free from {other_date}.",
        ),
        (
            "could I come on {date}? And may I bring {bring}?",
            "{date} would be better for me. I also own {bring}, is there enough space?",
        ),
        (
            "both are fine. The rules: no {ban}, and you {duty}.",
            "you can have both, as long as you {duty} and do without {ban}.",
        ),
    ),
    asides=(
        Aside(0, "where do you live now?", "with my parents, and it is getting cramped."),
        Aside(0, "what do you do for a living?", "I restore old clocks."),
        Aside(1, "is the internet fast?", "yes, except when it storms."),
        Aside(2, "are you an early riser?", "not at all, I go to bed long after {late}."),
        Aside(3, "who cleans the bathroom?", "a nice man comes every second week."),
        Aside(3, "is there a bakery near you?", "there are two, and they hate each other."),
    ),
    summaries=(
        "{a} takes {b}'s room for {rent} from {date}. It {flaw}; {a} must {duty}, with no {ban}.",
        "{a} moves in with {b} on {date}, paying {rent} because the room {flaw}, bringing {bring}.",
        "{b} lets a room that {flaw} to {a} for {rent}. From {date}, {a} has to {duty}.",
        "with {bring}, {a} moves to {b}'s flat on {date}: {rent}, no {ban}, but {a.he} must {duty}.",
    ),
)

NOISE = Plot(
    name="noise",
    slots={
        "noise reason": (
            (Told("your drill", "{b}'s drill"), "putting up shelves"),
            (Told("your drum kit", "{b}'s drum kit"), "practising for a contest"),
            (Told("your hammering", "{b}'s hammering"), "building a bunk bed"),
            (Told("your tango music", "{b}'s tango music"), "learning to dance"),
            (Told("your singing", "{b}'s singing"), "rehearsing a musical"),
            (Told("your shouting", "{b}'s shouting"), "teaching drama online"),
            (Told("your trumpet", "{b}'s trumpet"), "preparing an audition"),
            (Told("your treadmill", "{b}'s treadmill"), "training for a race"),
        ),
        "victim": ("the baby", "my wife", "my husband", "my father", "our guest", "the dog", "my daughter"),
        "late": EVENING,
        "limit": AFTERNOON,
        "day": DAYS,
        "place": ("the cellar", "a club", "{c}'s barn", "a school hall", "the garage", "a studio", "the youth centre"),
        "peace": (
            "ear plugs",
            "a plum cake",
            "a thick rug",
            "free tickets",
            "a jar of honey",
            "a spare key",
            "red roses",
        ),
        "wake": MORNING,
        "flats": NUMBERS,
    },
    lines=(
        (
            "{noise} kept {victim} awake until {late} again. Can't you stop?",
            "we have to talk. {victim} could not sleep until {late} because of {noise}.",
        ),
        (
            "I am sorry, I am {reason}. Would it help if I closed the window?",
            "I had no idea. I am {reason}. What if I put a blanket on the wall?",
        ),
        (
            "that is not enough, we tried it before. Stop at {limit}, and never do it on {day}.",
            "it would not help. I want silence from {limit}, and all day on {day}.",
        ),
        (
            "agreed. After that I will go to {place}. And let me give you {peace}.",
            "all right, I can go on in {place}. Please take {peace} as an apology.",
        ),
    ),
    asides=(
        Aside(0, "did anyone else complain?", "the man on the ground floor did."),
        Aside(0, "are you sure that it was me?", "there are only {flats} flats, so yes."),
        Aside(1, "I start work early, you know.", "I know, I hear your car at {wake}."),
        Aside(2, "has the caretaker said anything?", "he is a little deaf, luckily for you."),
        Aside(3, "did you get my parcel, by the way?", "yes, it is behind my door."),
        Aside(3, "and please lock the gate at night.", "I always do, ask the others."),
    ),
    summaries=(
        "{a} complains about {noise}. {b}, who is {reason}, will stop at {limit}, go to {place} and offers {peace}.",
        "{noise} keeps people awake until {late}, so {b} promises {a} silence from {limit} plus all of {day}.",
        "{b} is {reason} and disturbs {a}. From {limit} on, {b.he} moves to {place}; {a} receives {peace}.",
        "after a quarrel over {noise}, {b} gives {a} {peace} and agrees to be quiet after {limit} and all {day}.",
    ),
)

HOUSING = Scene("housing", (VIEWING, ROOM, NOISE))
