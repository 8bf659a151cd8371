"""Shopping: a present, a faulty purchase, a garment that is sold out."""

from study.dialogues.facts import COLOURS, DAYS, HIGH_PRICES, LOW_PRICES, SMALL_PRICES, STREETS
from study.dialogues.template import Aside, Plot, Scene, Told

_PRESENTS = (
    "silk scarf", "board game", "teapot", "wall clock", "fountain pen", "picnic basket", "desk lamp", "music box",
    "leather wallet", "cookbook", "telescope", "chess set", "pair of slippers", "photo album",
)  # fmt: skip
_RELATIVES = (
    "mother", "uncle", "niece", "boss", "grandfather", "neighbour", "cousin", "godmother", "flatmate", "sister",
)  # fmt: skip
_GARMENTS = ("raincoat", "cardigan", "pair of boots", "linen shirt", "ski jacket", "swimsuit", "hat", "wool skirt")

PRESENT = Plot(
    name="present",
    roles=("clerk", "shop assistant"),
    slots={
        "relative": tuple(Told(f"my {who}", f"{{a.his}} {who}") for who in _RELATIVES),
        "event": ("a birthday", "a retirement", "a housewarming", "a graduation", "an anniversary", "a farewell"),
        "item": _PRESENTS,
        "other": _PRESENTS,
        "price": LOW_PRICES,
        "other_price": HIGH_PRICES,
        "extra": (
            "gift paper",
            "a card",
            "two ribbons",
            "a wooden box",
            "silk paper",
            "chocolates",
        ),
    },
    lines=(
        (
            "I am looking for something for {relative}. It is for {event}.",
            "{event} is coming up, and I still have nothing for {relative}.",
        ),
        (
            "how about this {other}? It is {other_price}, and people love it.",
            "our {other} is popular. That one is {other_price}.",
        ),
        (
            "I can't spend {other_price}. What does the {item} over there cost?",
            "{other_price} is more than I have. And the {item} in the window?",
        ),
        (
            "the {item} is only {price}, with {extra} on the house. I will pack it for you.",
            "the {item} is {price}, and I add {extra} for free. It is an excellent choice.",
        ),
    ),
    asides=(
        Aside(0, "does this person have any hobbies?", "gardening, but the shed is full of tools already."),
        Aside(0, "is it urgent?", "rather, I should have come last week."),
        Aside(1, "do you have it in another colour?", "we did, but the last one went this morning."),
        Aside(1, "I thought about perfume first.", "that is risky, unless you know the brand."),
        Aside(2, "would a voucher be an idea?", "no, vouchers always end up in a drawer."),
        Aside(3, "can it be exchanged?", "yes, within a month, if you keep the receipt."),
    ),
    summaries=(
        (
            "{a} needs a gift for {relative} for {event}. The {other} at {other_price} is too dear; {a.he} takes "
            "the {item} for {price} with {extra}."
        ),
        (
            "for {event}, {a} buys {relative} the {item} at {price}, with {extra} thrown in, after turning down "
            "the {other}."
        ),
        "{b} sells {a} {item:a} for {price} plus {extra}, to give to {relative}; the {other} costs too much.",
        "rather than the {other} at {other_price}, {a} gives {relative} {item:a} worth {price} for {event}.",
    ),
)

RETURN = Plot(
    name="return",
    roles=("clerk", "manager", "cashier"),
    slots={
        "thing fault": (
            ("kettle", "leaks"),
            ("toaster", "burns everything"),
            ("alarm clock", "never rings"),
            ("backpack", "has a torn strap"),
            ("hair dryer", "smells of smoke"),
            ("office chair", "squeaks"),
            ("torch", "goes out after a minute"),
            ("blender", "is missing a blade"),
            ("printer", "jams on every page"),
            ("tent", "has a broken pole"),
        ),
        "bought": DAYS,
        "lost": (
            Told("I threw it away", "{a.he} threw the receipt away"),
            Told("the dog ate it", "the dog ate the receipt"),
            Told("it went through the wash", "the receipt went through the wash"),
            Told("I left it on a bus", "{a.he} left the receipt on a bus"),
        ),
        "credit": LOW_PRICES,
        "spent": (
            "a radio",
            "new towels",
            "two pans",
            "garden gloves",
            "light bulbs",
            "a doormat",
            "six glasses",
        ),
    },
    lines=(
        (
            "I bought this {thing} on {bought}, and it {fault}. I want my money back.",
            "this {thing} {fault}, and I only got it on {bought}. Please refund me.",
        ),
        (
            "I am sorry to hear that. May I see the receipt?",
            "that should not happen. Do you have the receipt with you?",
        ),
        (
            "about the receipt: {lost}.",
            "as to the receipt, I must confess that {lost}.",
        ),
        (
            "then I can't pay you in cash, but you get {credit} of credit, enough for {spent}.",
            "in that case it is store credit, {credit}. That would buy you {spent}, for example.",
        ),
    ),
    asides=(
        Aside(0, "have you tried another socket or another shelf?", "I tried everything, believe me."),
        Aside(0, "was the box open when you bought it?", "no, it was sealed with tape."),
        Aside(1, "does it matter? You must know me by now.", "I do, but the till does not."),
        Aside(1, "a new one of the same kind would do, too.", "that model is no longer made."),
        Aside(2, "did you pay by card, perhaps?", "no, in cash, as always."),
        Aside(3, "how long is that valid?", "for a year, in all our shops."),
    ),
    summaries=(
        "{a}'s {thing} {fault}, but {lost}, so {b} gives {a.him} {credit} in credit, which would buy {spent}.",
        (
            "{a} brings back {thing:a} bought on {bought} that {fault}. Without a receipt, {a.he} only gets "
            "{credit} to spend on {spent}, say."
        ),
        "no refund for {a}: {lost}. For the {thing} that {fault}, {b} offers store credit of {credit}, or {spent}.",
        "the {thing} from {bought} {fault}. As {lost}, {a} has to accept {credit} of credit instead of cash.",
    ),
)

SOLD_OUT = Plot(
    name="sold-out",
    roles=("salesman", "shop assistant"),
    slots={
        "garment": _GARMENTS,
        "colour": COLOURS,
        "other_colour": COLOURS,
        "size": ("small", "medium", "large", "size 38", "size 40", "size 42", "size 44"),
        "street": STREETS,
        "off": SMALL_PRICES,
        "pickup": DAYS,
        "occasion": ("a wedding", "a hiking trip", "a school reunion", "an interview", "a cruise", "a play"),
    },
    lines=(
        (
            "do you have this {garment} in {colour}, {size}? I need it for {occasion}.",
            "I would like that {garment} for {occasion}. Is there one in {colour}, {size}?",
        ),
        (
            "the {colour} ones are gone, only {other_colour} is left.",
            "not in {colour}, sorry. I have plenty in {other_colour}, though.",
        ),
        (
            "{other_colour} makes me look ill. Could you order it?",
            "no, {other_colour} does not suit me at all. Can you get one for me?",
        ),
        (
            "our branch on {street} has one. Collect it there on {pickup}, and I take off {off}.",
            "it can be picked up on {street} from {pickup}, and for your trouble it is {off} cheaper.",
        ),
    ),
    asides=(
        Aside(0, "would you like to try on something similar?", "no, I have set my heart on this one."),
        Aside(0, "have you looked on the second floor?", "yes, there are only coats up there."),
        Aside(1, "what about the one on the dummy?", "that has a stain on the back."),
        Aside(1, "is it warm enough for autumn?", "with a pullover underneath, certainly."),
        Aside(2, "do you have our loyalty card?", "somewhere, but not with me."),
        Aside(3, "can it be washed at home?", "by hand only, and never in hot water."),
    ),
    summaries=(
        (
            "{a} wants {garment:a} in {colour} for {occasion}. It is sold out here; {street} will have it on "
            "{pickup}, {off} cheaper."
        ),
        (
            "the {colour} {garment} is gone, but {a} refuses {other_colour}, so one will wait on {street} from "
            "{pickup}, {off} cheaper."
        ),
        "{b} has no {colour} {garment} left, but lets {a} pick one up on {street} on {pickup} with {off} off.",
        "for {occasion}, {a} will fetch {garment:a}, {size}, {colour}, from {street} on {pickup}, saving {off}.",
    ),
)

SHOPPING = Scene("shopping", (PRESENT, RETURN, SOLD_OUT))
