"""Repairs: a household machine, a vehicle, a flat that falls apart."""

from study.dialogues.facts import AFTERNOON, BIG_PRICES, COLOURS, DAYS, HIGH_PRICES, LOW_PRICES, MORNING, STREETS
from study.dialogues.template import Aside, Plot, Scene, Told

MACHINE = Plot(
    name="machine",
    roles=("technician", "repairman"),
    slots={
        "machine symptom": (
            ("dishwasher", "leaves puddles"),
            ("washing machine", "shakes like mad"),
            ("freezer", "is covered in ice"),
            ("oven", "never gets hot"),
            ("tumble dryer", "hums loudly"),
            ("coffee maker", "drips"),
            ("vacuum cleaner", "blows out dust"),
            ("sewing machine", "keeps getting stuck"),
            ("boiler", "goes off at night"),
            ("lawn mower", "starts smoking"),
        ),
        "part other_part": (
            ("the seal", "the pump"),
            ("a belt", "the motor"),
            ("the thermostat", "the fuse"),
            ("a bearing", "the drum"),
            ("the filter", "the hose"),
            ("a spring", "the switch"),
            ("the valve", "the heating coil"),
            ("a wire", "the control board"),
        ),
        "years": ("four", "six", "eight", "nine", "eleven", "twelve", "fourteen"),
        "price": HIGH_PRICES,
        "new_price": BIG_PRICES,
        "day": DAYS,
        "time": MORNING,
    },
    lines=(
        (
            "my {machine} {symptom}. It is {years} years old, and I think it is {other_part}.",
            "after {years} years my {machine} {symptom}. I suspect {other_part}.",
        ),
        (
            "I have looked, {other_part} is fine, it is {part}. A new machine would be {new_price}.",
            "it is not {other_part}. The trouble is {part}. New ones start at {new_price}.",
        ),
        (
            "I would rather keep this one. Can it be saved, and for how much?",
            "buying a new one is out of the question. Can you mend it?",
        ),
        (
            "this one can be saved for {price}. I come back with the parts on {day} at {time}.",
            "I can save it for {price}, on {day} at {time}.",
        ),
    ),
    asides=(
        Aside(0, "did you buy it here in town?", "no, it came with the flat."),
        Aside(0, "have you read the manual?", "I don't even know where it is."),
        Aside(1, "it was such a good make.", "they are not what they used to be."),
        Aside(1, "should I have cleaned it more often?", "it would not have helped."),
        Aside(2, "is there a warranty?", "it ended long ago."),
        Aside(3, "do you need a parking space?", "no, I come by bicycle."),
    ),
    summaries=(
        (
            "{a}'s {machine} {symptom} because of {part}, not {other_part}. {b} will mend it on {day} at {time} "
            "for {price}."
        ),
        "{a} keeps the old {machine} rather than spend {new_price}; {b} replaces {part} on {day} for {price}.",
        "{b} traces the fault of the {machine} to {part}, to be repaired {day} at {time} for {price}.",
        "{part} is why the {machine} {symptom}. {a} pays {price} for a repair on {day} instead of buying a new one.",
    ),
)

VEHICLE = Plot(
    name="vehicle",
    roles=("mechanic",),
    slots={
        "vehicle": ("scooter", "bicycle", "pickup", "motorbike", "old van", "tractor", "camper", "moped"),
        "accident": (
            "hit a kerb",
            "ran over a nail",
            "got stuck in mud",
            "slid into a hedge",
            "was left in the rain",
            "hit a gatepost",
        ),
        "damage": (
            "both brakes",
            "one wheel",
            "the chain",
            "two cables",
            "the exhaust",
            "both lamps",
            "the gearbox",
            "every gear",
        ),
        "colour": COLOURS,
        "price": LOW_PRICES,
        "new_price": HIGH_PRICES,
        "day": DAYS,
        "need": (
            Told("I deliver newspapers with it", "{a} delivers newspapers"),
            Told("I take the children to school with it", "{a} takes children to school"),
            Told("I am going on holiday", "{a} is going on holiday"),
            Told("I have promised to lend it to {c}", "{a} has promised it to {c}"),
            Told("I am in a race next week", "{a} is in a race"),
        ),
        "time": AFTERNOON,
    },
    lines=(
        (
            "my {vehicle} {accident}, and now something is wrong with {damage}.",
            "can you fix {damage}? The {vehicle} {accident} last night.",
        ),
        (
            "I see. With new parts it comes to {new_price}, and it will take two weeks.",
            "oh dear. I can order new parts for {new_price}, but that takes a while.",
        ),
        (
            "I can't pay that, and I need it soon, because {need}.",
            "I can't wait that long, {need}. Is there a cheaper way?",
        ),
        (
            "I have used parts for {price}. Then you get it back on {day} at {time}.",
            "with second-hand parts it is {price}, and it is ready on {day} at {time}. Good, I will start.",
        ),
    ),
    asides=(
        Aside(0, "is it the {colour} one outside?", "yes, with the sticker on it."),
        Aside(0, "did anyone get hurt?", "no, just my pride."),
        Aside(1, "my father used to do this himself.", "those days are gone, with all the electronics."),
        Aside(2, "do you have a spare key?", "no, the dog buried it."),
        Aside(3, "could you pump up the tyres as well?", "that is always included."),
        Aside(3, "and the horn sounds strange.", "I think it is supposed to."),
    ),
    summaries=(
        "{a}'s {vehicle} {accident} and {damage} must be fixed. Used parts cost {price}; it is ready {day} at {time}.",
        (
            "{a} has {damage} of {vehicle:a} repaired with used parts for {price}, as new ones at {new_price} "
            "take too long."
        ),
        "since {need}, {a.he} chooses the quick repair of {damage} for {price}, done by {day}, {time}.",
        "{b} will fix {damage} by {day} for {price}, not {new_price}, after the {vehicle} {accident}.",
    ),
)

FLAT = Plot(
    name="flat",
    roles=("plumber", "caretaker", "electrician"),
    slots={
        "fault": (
            "the ceiling is dripping",
            "the lights flicker",
            "the radiator is cold",
            "the sink is blocked",
            "the doorbell is dead",
            "the shower is freezing",
            "the hall smells of gas",
            "the toilet keeps running",
        ),
        "street": STREETS,
        "number": ("4", "7", "11", "16", "23", "38", "52", "65", "81", "94"),
        "day": DAYS,
        "time": MORNING,
        "new_time": AFTERNOON,
        "event": (
            "a yoga class",
            "a job to finish",
            "guests from abroad",
            "a hospital visit",
            "an online exam",
            "a christening",
        ),
        "keyholder": (
            "the woman next door",
            "the baker",
            "{c}",
            "a colleague",
            "the student upstairs",
            "the caretaker's wife",
        ),
        "fee": LOW_PRICES,
    },
    lines=(
        (
            "{fault} in my flat, {number} {street}. Please come quickly.",
            "I live at {number} {street}, and {fault}. Can you help?",
        ),
        (
            "I could be there on {day} at {time}. Would you be at home?",
            "my first free slot is on {day} at {time}. Is that convenient?",
        ),
        (
            "I have {event} then, I am afraid. Come at {new_time}, please, {keyholder} has a key.",
            "I have {event} at that hour. But {keyholder} can let you in at {new_time}.",
        ),
        (
            "{new_time} is all right. I charge {fee} for such a job.",
            "good, {new_time}, then. You pay me {fee}, in cash if possible.",
        ),
    ),
    asides=(
        Aside(0, "since when has it been like that?", "since the storm, I think."),
        Aside(0, "did you try to turn it off and on?", "three times, and I kicked it, too."),
        Aside(1, "can I do anything until then?", "just don't touch it, please."),
        Aside(2, "is there a dog?", "yes, but he only barks."),
        Aside(3, "the lift is out of order, by the way.", "and you live right at the top, of course."),
        Aside(3, "should I clear the hall?", "yes, I have a big toolbox."),
    ),
    summaries=(
        "{fault} at {number} {street}. {b} comes on {day} at {new_time}, let in by {keyholder}, for {fee}.",
        "{a} reports that {fault}. As {a.he} has {event}, {keyholder} will open for {b} on {day}, {new_time}.",
        (
            "{b} agrees to visit {number} {street} on {day} at {new_time} instead of {time}, for {fee}; "
            "{keyholder} has a key."
        ),
        "{event} keeps {a} away at {time}, so {keyholder} lets {b} in at {new_time} to see why {fault}.",
    ),
)

REPAIR = Scene("repair", (MACHINE, VEHICLE, FLAT))
