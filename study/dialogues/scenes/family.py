"""Family: a birthday meal, chores, a pet for the house."""

from study.dialogues.facts import AFTERNOON, DAYS, EVENING, NUMBERS, SMALL_PRICES
from study.dialogues.template import Aside, Plot, Scene, Told

_CHORES = (
    "mow the lawn",
    "clean both ovens",
    "wash two cars",
    "rake the leaves",
    "iron ten shirts",
    "paint our fence",
    "tidy the cellar",
    "repot six palms",
    "weed every flower bed",
    "vacuum both carpets",
    "sort old laundry",
    "polish the silver",
)
_CAKES = (
    "carrot cake", "apple pie", "cheesecake", "lemon tart", "chocolate cake", "walnut cake", "cherry pie", "meringue",
    "gingerbread", "marzipan cake",
)  # fmt: skip
_PETS = ("dog", "snake", "kitten", "parrot", "pony", "ferret", "lizard", "rabbit", "guinea pig", "hedgehog")

BIRTHDAY = Plot(
    name="birthday",
    slots={
        "age": ("eighteen", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"),
        "day": DAYS,
        "hour": EVENING,
        "cake": _CAKES,
        "other_cake": _CAKES,
        "dislike": (
            "gives {c} a rash",
            "is never sweet enough",
            "reminds {c} of school",
            "makes {c} sick",
            "always burns",
        ),
        "where": (
            "in the garden",
            "at the lake",
            "in the garage",
            "at grandmother's flat",
            "in the church hall",
            "at the allotment",
        ),
        "job": (
            "hire a band",
            "find candles",
            "blow up balloons",
            "write a speech",
            "collect the guests",
            "buy juice",
            "cut paper stars",
        ),
        "guests": NUMBERS,
    },
    lines=(
        (
            "{c} turns {age} on {day}. I want to bake {other_cake}.",
            "{c} will be {age} on {day}, and I thought of making {other_cake}.",
        ),
        (
            "{other_cake} {dislike}. Make {cake}, everybody likes that.",
            "please don't, {other_cake} {dislike}. How about {cake}?",
        ),
        (
            "fine, {cake}. Will you {job}? We celebrate {where}.",
            "then I make {cake}. We do it {where}, and you could {job}.",
        ),
        (
            "I will {job}. Let us tell everyone to come at {hour}.",
            "I don't mind helping. I think {hour} is a good time to start.",
        ),
    ),
    asides=(
        Aside(0, "does anybody know yet?", "no, it is a secret, so keep quiet."),
        Aside(0, "how many are we?", "{guests}, not counting the baby."),
        Aside(1, "I could also just buy ice cream.", "it would melt before they arrive."),
        Aside(2, "do you think that it will rain?", "if it does, we have umbrellas."),
        Aside(3, "will our cousins come?", "only if someone pays for the petrol."),
        Aside(3, "I have no clean plates left.", "we take the paper ones."),
    ),
    summaries=(
        "for {c}'s birthday on {day}, {a} will bake {cake}, as {other_cake} {dislike}; {b} is to {job}.",
        "{c} turns {age}. They celebrate {where} on {day} at {hour} with {cake}; {b} has to {job}.",
        "{b} talks {a} out of {other_cake}, which {dislike}. {c} gets {cake} {where} on {day}, {hour}.",
        "{a} makes {cake} and {b} will {job}: {c}'s party takes place {where} at {hour}.",
    ),
)

CHORES = Plot(
    name="chores",
    slots={
        "chore": _CHORES,
        "other_chore": _CHORES,
        "excuse": (
            Told("my arm still hurts", "{b}'s arm still hurts"),
            Told("I did it last time", "{b} did it last time"),
            Told("the dust makes me sneeze", "the dust makes {b} sneeze"),
            Told("I have to study", "{b} has to study"),
            Told("it takes me hours", "it takes {b} hours"),
            Told("I hate it", "{b} hates it"),
        ),
        "visitor": ("the landlady", "our aunt", "the photographer", "the new neighbours", "a buyer", "grandfather"),
        "day": DAYS,
        "by": AFTERNOON,
        "pay": SMALL_PRICES,
        "treat": (
            "the car keys",
            "pancakes",
            "a free evening",
            "extra screen time",
            "new trainers",
            "popcorn",
        ),
    },
    lines=(
        (
            "{visitor} will be here on {day}. Could you {other_chore}?",
            "would you {other_chore}, please? {visitor} will come on {day}.",
        ),
        (
            "I would rather not, {excuse}. Let me {chore}.",
            "must I? {excuse}. Let me {chore} instead.",
        ),
        (
            "you can {chore}, that is fine, too, but it must be done by {by}.",
            "a deal. Just make sure that you finish before {by}.",
        ),
        (
            "no problem. And do I get {treat} for it? Thanks!",
            "I will, if I get {treat} afterwards. You nod? Great!",
        ),
    ),
    asides=(
        Aside(0, "why is it always me?", "because you are the one with time."),
        Aside(0, "can't we pay somebody? It is only {pay}.", "no, that is money for the school trip."),
        Aside(1, "and who walks the dog?", "he has been out twice already."),
        Aside(2, "where did we put the bucket?", "behind the freezer, I think."),
        Aside(3, "don't forget to call your sister.", "she never picks up."),
        Aside(3, "there is some stew left.", "I will have it cold, later."),
    ),
    summaries=(
        "{a} wants {b} to {other_chore}, but {excuse}. {b.he} will {chore} by {by}, rewarded with {treat}.",
        "{b} refuses to {other_chore} before {visitor} comes and agrees to {chore} instead, in exchange for {treat}.",
        "with {visitor} due on {day}, {b} offers to {chore}, wants {treat}, and must finish by {by}.",
        "instead of having to {other_chore}, {b} gets to {chore} by {by}, with {treat} as reward.",
    ),
)

PET = Plot(
    name="pet",
    slots={
        "pet": _PETS,
        "other_pet": _PETS,
        "trouble": ("needs too much room", "would wake the baby", "smells", "eats a fortune", "bites", "scares {c}"),
        "rule": (
            "feed it every day",
            "clean up after it",
            "stop biting nails",
            "pay half the food",
            "improve at maths",
            "give up the drums",
        ),
        "source": ("a shelter", "a farm", "a breeder", "{c}'s school", "the pet shop", "a pet fair"),
        "day": DAYS,
        "pet_name": ("Captain", "Noodle", "Queenie", "Sherlock", "Pumpkin", "Ziggy", "Button", "Comet"),
        "price": SMALL_PRICES,
    },
    lines=(
        (
            "everybody in my class has a pet. Can I have {other_pet:a}?",
            "I have saved some money, and I would love {other_pet:a}. May I?",
        ),
        (
            "no, {other_pet:a} {trouble}. I could imagine {pet:a}, at most.",
            "certainly not, {other_pet:a} {trouble}. If anything, then {pet:a}.",
        ),
        (
            "oh, yes, even better! I would call it {pet_name}. What do I have to do?",
            "really? Then its name is {pet_name}! Is there a catch?",
        ),
        (
            "you must {rule}. If you promise, we go to {source} on {day}.",
            "only that you {rule}. Then we get one from {source} on {day}.",
        ),
    ),
    asides=(
        Aside(0, "have you asked your teacher about the trip?", "not yet, I will do it tomorrow."),
        Aside(0, "where did you see one?", "in a film, it was so funny."),
        Aside(1, "and a hamster wheel costs {price}.", "we are not buying a wheel today."),
        Aside(2, "have you done your homework?", "almost, just the drawing is missing."),
        Aside(3, "may it sleep in my bed?", "it may sleep in the hall."),
        Aside(3, "can I tell the others?", "after dinner, and wash your hands first."),
    ),
    summaries=(
        "{a} asks {b} for {other_pet:a}, but it {trouble}. {a.he} gets {pet:a} named {pet_name} and has to {rule}.",
        "{b} says no to {other_pet:a} but yes to {pet:a} from {source}, if {a} promises to {rule}.",
        "{other_pet:a} {trouble}, so {a} gets {pet:a} from {source} on {day}, soon called {pet_name}.",
        "{b} takes {a} to {source} on {day} to fetch {pet:a} called {pet_name}; {a.he} must {rule}.",
    ),
)

FAMILY = Scene("family", (BIRTHDAY, CHORES, PET))
