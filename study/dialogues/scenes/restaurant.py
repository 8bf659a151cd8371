"""Restaurants: an order, a table, a spoiled dish."""

from study.dialogues.facts import DAYS, EARLY_EVENING, LATE_EVENING, LOW_PRICES, NUMBERS, SMALL_PRICES
from study.dialogues.template import Aside, Plot, Scene, Told

_DISHES = (
    "mushroom risotto", "grilled trout", "lamb stew", "onion soup", "duck breast", "spinach lasagne", "beef curry",
    "roast chicken", "prawn salad", "stuffed peppers", "veal schnitzel", "pumpkin gnocchi", "vegetable pie",
    "tuna steak", "bean chilli",
)  # fmt: skip

ORDER = Plot(
    name="order",
    roles=("waiter", "waitress"),
    slots={
        "dish": _DISHES,
        "other_dish": _DISHES,
        "ban": ("nuts", "garlic", "gluten", "milk", "alcohol", "eggs", "celery", "sesame"),
        "side": (
            "mashed potatoes",
            "chips",
            "wild rice",
            "steamed beans",
            "red cabbage",
            "bread",
            "coleslaw",
            "noodles",
        ),
        "drink": ("cider", "iced tea", "tomato juice", "a dark beer", "mineral water", "ginger ale", "pear juice"),
        "price": LOW_PRICES,
        "minutes": ("ten", "fifteen", "twenty", "thirty", "forty"),
    },
    lines=(
        (
            "I will have the {other_dish}, please, if it is made without {ban}.",
            "the {other_dish} sounds good. I can't eat {ban}, is that a problem?",
        ),
        (
            "then the {other_dish} is not for you, I am afraid. Our {dish} is safe.",
            "in the {other_dish} it would be. You could have our {dish} without any worry.",
        ),
        (
            "thank you. I take that, with {side}. And {drink}.",
            "good to know. That one, then, with {side} and {drink}.",
        ),
        (
            "very well, that makes {price}. It takes {minutes} minutes.",
            "coming up in {minutes} minutes. It is {price} altogether.",
        ),
    ),
    asides=(
        Aside(0, "would you like to see the wine list?", "no, I still have to drive."),
        Aside(0, "is the draught from the door a problem?", "not at all, I like fresh air."),
        Aside(1, "what is today's soup?", "leek, but there is hardly any left."),
        Aside(1, "is the cook from around here?", "no, he came from the coast."),
        Aside(2, "any starter for you?", "no, I had a late lunch."),
        Aside(3, "could you turn the music down?", "I will try, the switch is loose."),
    ),
    summaries=(
        (
            "{a} avoids {ban}, so {b} suggests the {dish} in place of the {other_dish}; with {side} and {drink} "
            "it costs {price}."
        ),
        (
            "because the {other_dish} contains {ban}, {a} orders the {dish} with {side} plus {drink}, ready in "
            "{minutes} minutes."
        ),
        "{b} advises {a} against the {other_dish}. {a} settles on {dish}, {side} and {drink} for {price}.",
        "{dish} with {side} and {drink} is what {a} has for {price}: the {other_dish} is off limits because of {ban}.",
    ),
)

TABLE = Plot(
    name="table",
    roles=("host", "manager"),
    slots={
        "guests": NUMBERS,
        "day": DAYS,
        "time": EARLY_EVENING,
        "new_time": LATE_EVENING,
        "event": ("an engagement", "a reunion", "a promotion", "a chess victory", "a silver wedding", "a baptism"),
        "obstacle": (
            "a film crew",
            "a wedding party",
            "a football club",
            "a bus full of tourists",
            "a wine tasting",
            "a private party",
        ),
        "spot": (
            "by the window",
            "on the terrace",
            "under the arches",
            "near the piano",
            "in the winter garden",
            "upstairs",
            "next to the aquarium",
        ),
        "need": ("a high chair", "a vegan menu", "a microphone", "flowers", "a ramp", "a cake stand", "sparkling wine"),
        "deposit": LOW_PRICES,
    },
    lines=(
        (
            "a table for {guests} on {day} at {time}, please. We are celebrating {event}.",
            "we have {event} to celebrate. Do you have room for {guests} on {day} at {time}?",
        ),
        (
            "we have {obstacle} here at that hour. All I have at {time} is the cellar.",
            "at {time} there is just the cellar, because {obstacle} will fill the main room.",
        ),
        (
            "the cellar is too gloomy for us. When could we sit {spot}? And we need {need}.",
            "no cellar, please. We would like to be {spot}, and to have {need}.",
        ),
        (
            "come at {new_time} and you can have that, with {need}. I ask for {deposit} in advance.",
            "from {new_time} I can do that. {need} will be there, for a deposit of {deposit}.",
        ),
    ),
    asides=(
        Aside(0, "have you eaten here before?", "once, and I still dream of the dumplings."),
        Aside(0, "are there any children?", "two, but they are well behaved."),
        Aside(1, "I heard that you have a new cook.", "yes, she started in the spring."),
        Aside(1, "is the lift working?", "it is, slowly."),
        Aside(2, "would you like the set menu?", "no, we order from the card."),
        Aside(3, "may we bring our own dessert?", "we don't like it, but we won't stop you."),
    ),
    summaries=(
        (
            "{a} books {spot} for {guests} on {day} at {new_time}, with {need}, to celebrate {event}; the "
            "deposit is {deposit}."
        ),
        "{obstacle} is in the way at {time}, so {a}'s group of {guests} comes at {new_time}, sitting {spot}.",
        "{a} turns the cellar down. {b} reserves {guests} seats {spot} from {new_time} on {day}, {need} included.",
        (
            "for {event}, {b} promises {a} {need} plus {guests} seats {spot} on {day}, {new_time}, for a "
            "{deposit} deposit."
        ),
    ),
)

SPOILED = Plot(
    name="spoiled",
    roles=("waiter", "manager", "waitress"),
    slots={
        "dish": _DISHES,
        "fault": ("cold", "burnt", "far too salty", "raw inside", "full of sand", "dry as paper", "sour"),
        "culprit": (
            "the oven is broken",
            "the cook is new",
            "the kitchen is short of staff",
            "the fridge failed",
            "the labels were mixed up",
            "the apprentice was alone",
        ),
        "hurry": (
            Told("my bus leaves soon", "{a}'s bus leaves soon"),
            Told("my break is over", "{a}'s break is over"),
            Told("I have lost my appetite", "{a} has no appetite left"),
            Told("my show is about to begin", "{a}'s show is about to begin"),
            Told("my parking ticket runs out", "{a}'s parking ticket runs out"),
        ),
        "off": SMALL_PRICES,
        "gift": (
            "an espresso",
            "two vouchers",
            "a sorbet",
            "fresh fruit",
            "olive oil",
            "a brownie",
            "free coffee",
        ),
        "waited": ("twenty", "thirty", "forty", "fifty"),
    },
    lines=(
        (
            "I waited {waited} minutes, and now my {dish} is {fault}.",
            "look, the {dish} is {fault}. And I waited {waited} minutes for it!",
        ),
        (
            "I do apologise, {culprit}. We will make you another one.",
            "oh, I am sorry. {culprit}. Shall I bring you a new plate?",
        ),
        (
            "I don't want another one, {hurry}. I would rather pay less.",
            "a new one is no use, {hurry}. Just change the bill.",
        ),
        (
            "of course. I take off {off}, and please accept {gift}.",
            "I understand. It is {off} less, and you get {gift} from us.",
        ),
    ),
    asides=(
        Aside(0, "was the drink all right, at least?", "yes, the drink was lovely."),
        Aside(0, "did anyone come to your table?", "a young man did, and then he vanished."),
        Aside(1, "last month it was delicious.", "I am glad to hear that, at least."),
        Aside(1, "is the owner here?", "not today, she is at the market."),
        Aside(2, "would you like to see the cook?", "no, leave him in peace."),
        Aside(3, "and where is my coat?", "on the hook behind the plant."),
    ),
    summaries=(
        "{a}'s {dish} is {fault} because {culprit}. {a.he} declines another one, getting {off} off plus {gift}.",
        "{a} complains that the {dish} is {fault}. As {hurry}, {b} takes {off} from the bill and adds {gift}.",
        "{b} admits that the {dish} is {fault} because {culprit}. {a} pays {off} less and receives {gift}.",
        "{hurry}, so there is no second {dish}; {b} makes up for it with {off} off plus {gift}.",
    ),
)

RESTAURANT = Scene("restaurant", (ORDER, TABLE, SPOILED))
