"""Appointments: a doctor, a salon, an animal clinic."""

from study.dialogues.facts import AFTERNOON, DAYS, EVENING, HIGH_PRICES, LOW_PRICES, MORNING, SURNAMES
from study.dialogues.template import Aside, Plot, Scene, Told

_COMPLAINTS = (
    Told("my sore knee", "{a.his} sore knee"),
    Told("my earache", "{a.his} earache"),
    Told("a rash on my arm", "a rash on {a.his} arm"),
    Told("this dry cough", "a dry cough"),
    Told("my stiff neck", "{a.his} stiff neck"),
    Told("these dizzy spells", "dizzy spells"),
    Told("my swollen ankle", "{a.his} swollen ankle"),
    Told("a pain in my hip", "a pain in {a.his} hip"),
    Told("my burning eyes", "{a.his} burning eyes"),
    Told("my weak wrist", "{a.his} weak wrist"),
)
_AWAY = ("teaching students", "in surgery", "on leave", "visiting a hospital", "at a congress", "doing home visits")
_PAPERS = ("an insurance card", "old x-rays", "a list of medicines", "a referral letter", "the vaccination record")

DOCTOR = Plot(
    name="doctor",
    roles=("receptionist", "nurse"),
    slots={
        "doctor": tuple(f"Dr. {surname}" for surname in SURNAMES),
        "complaint": _COMPLAINTS,
        "away": _AWAY,
        "papers": _PAPERS,
        "day": DAYS,
        "new_day": DAYS,
        "time": MORNING,
        "new_time": AFTERNOON,
    },
    lines=(
        (
            "I need {doctor} to help me with {complaint}. Is {day} at {time} free?",
            "could I come in on {day} at {time}? It is about {complaint}, and I usually see {doctor}.",
            "I am worried about {complaint}. Can {doctor} see me on {day}, say at {time}?",
        ),
        (
            "I see. {doctor} is {away} on {day}, though. The next gap is on {new_day} at {new_time}.",
            "sorry, {doctor} is {away} that day. I can offer you {new_time} on {new_day}.",
        ),
        (
            "that will have to do. Do I need to bring anything?",
            "I was hoping for sooner, but all right. What should I have with me?",
        ),
        (
            "just {papers}, please. You are in the book now.",
            "please remember {papers}. I have written you down.",
        ),
    ),
    asides=(
        Aside(0, "have you been here before?", "yes, for a flu jab, but that was years ago."),
        Aside(0, "are you running a temperature?", "no, I checked this morning and it was normal."),
        Aside(1, "and the other doctor, is she free?", "she only sees children, I am afraid."),
        Aside(1, "you have nothing in the evening?", "we stopped that in spring, nobody came."),
        Aside(2, "is your address still the same?", "yes, I have not moved."),
        Aside(3, "how long is the wait, as a rule?", "a quarter of an hour, if nobody faints."),
    ),
    summaries=(
        "{doctor} is {away} on {day}, so {a} will come about {complaint} on {new_day} at {new_time}, with {papers}.",
        (
            "{a} needs help with {complaint}. As {doctor} is {away}, the visit is on {new_day} at {new_time}; "
            "{a.he} should bring {papers}."
        ),
        (
            "because {doctor} is {away}, {b} moves {a} to {new_day}, {new_time}, for {complaint}; {papers} "
            "should not be forgotten."
        ),
        (
            "to have {complaint} checked, {a} sees {doctor} on {new_day}, {new_time}, not {day} as hoped; "
            "{papers} will be needed."
        ),
    ),
)

SALON = Plot(
    name="salon",
    roles=("stylist", "receptionist"),
    slots={
        "service": ("haircut", "beard trim", "manicure", "facial", "colour rinse", "perm", "scalp massage"),
        "reason": (
            Told("my train gets in late", "{a}'s train gets in late"),
            Told("I have a job interview", "{a} has a job interview"),
            Told("my son has a recital", "{a}'s son has a recital"),
            Told("I must sign a lease", "{a} must sign a lease"),
            Told("my aunt is visiting", "{a}'s aunt is visiting"),
            Told("I am giving a lecture", "{a} is giving a lecture"),
        ),
        "day": DAYS,
        "new_day": DAYS,
        "early": MORNING,
        "late": EVENING,
        "price": LOW_PRICES,
    },
    lines=(
        (
            "I have a {service} booked for {day}, but {reason}. Can we move it?",
            "about my {service} on {day}: {reason}, so I cannot make it. Is there another day?",
        ),
        (
            "let me see. {new_day} at {early} has just become free.",
            "somebody cancelled for {new_day}, so I could fit you in at {early}.",
        ),
        (
            "the day is fine, but I work at that hour. Is there anything later?",
            "I never get up before ten. What about the end of that day?",
        ),
        (
            "then {c} will do it at {late}. It costs {price}, as planned.",
            "{c} stays on that day and can take you at {late}. That will be {price}.",
        ),
    ),
    asides=(
        Aside(0, "is it the usual style?", "yes, nothing wild this time."),
        Aside(0, "do you remember who you were booked with?", "the tall man with the glasses, I think."),
        Aside(1, "is there a fee for the change?", "not if you tell us a day ahead."),
        Aside(1, "I could also drop the whole thing.", "please don't, we will find something."),
        Aside(2, "would the week after be any good?", "no, I am abroad by then."),
        Aside(3, "and do you sell that lemon shampoo?", "it is sold out, but we have one with mint."),
    ),
    summaries=(
        "{reason} on {day}, so {c} will do the {service} on {new_day} at {late} instead, for {price}.",
        "{a} shifts a {service} from {day} to {new_day}. {early} is too early, but {c} is free at {late}, for {price}.",
        "the {service} with {c} moves to {new_day}, {late}, costing {price}, as {reason} on {day}.",
        "since {reason}, {b} rebooks the {service} with {c}: {new_day}, {late}, {price}.",
    ),
)

VET = Plot(
    name="vet",
    roles=("vet", "assistant"),
    slots={
        "pet": ("rabbit", "cat", "parrot", "puppy", "tortoise", "hamster", "old spaniel", "goat"),
        "pet_name": ("Biscuit", "Pepper", "Waffle", "Shadow", "Olive", "Rocket", "Mango", "Domino"),
        "symptom": (
            "won't eat",
            "keeps sneezing",
            "is limping",
            "scratches all night",
            "has a swollen eye",
            "cannot sleep",
        ),
        "cause": ("a splinter", "mites", "a tooth infection", "an allergy", "a mild fever", "stress"),
        "cure": ("drops", "an ointment", "tablets", "a special diet", "a warm bath", "an injection"),
        "dose": ("twice a day", "every morning", "before each meal", "once a week", "every other evening"),
        "check": DAYS,
        "price": HIGH_PRICES,
    },
    lines=(
        (
            "{pet_name}, my {pet}, {symptom}. I thought it would pass, but it has not.",
            "something is wrong with my {pet}. Poor {pet_name} {symptom}, and I don't know why.",
        ),
        (
            "let me have a look. It is not an injury. I would say it is {cause}.",
            "hold still, little one. No, nothing is broken, this looks like {cause}.",
        ),
        (
            "will it need an operation? I was told that they cost a fortune.",
            "oh dear. Do you have to operate?",
        ),
        (
            "there is no need to operate. {cure} {dose} will do. It is {price}, and I want to check again on {check}.",
            "I won't operate. We try {cure} {dose}, for {price}, and you come back on {check}.",
        ),
    ),
    asides=(
        Aside(0, "how old is your pet?", "about three, we got it from a shelter."),
        Aside(0, "any change of food lately?", "none, it is always the same brand."),
        Aside(1, "my neighbour said it was worms.", "neighbours always say that."),
        Aside(1, "could the children catch it?", "no, there is no danger of that."),
        Aside(2, "do you have insurance for this?", "sadly not, I always put it off."),
        Aside(3, "should I keep it indoors?", "only if it seems happier that way."),
    ),
    summaries=(
        (
            "{a}'s {pet} {pet_name} {symptom} because of {cause}. {b} prescribes {cure} {dose} for {price}, with "
            "a check on {check}."
        ),
        (
            "{a} worries about {pet_name}, {pet:a} that {symptom}. {b} finds {cause} but suggests only {cure} "
            "{dose} for {price}."
        ),
        (
            "{b} finds that {pet_name} the {pet} has {cause}: no operation, just {cure} {dose}, {price}, and a "
            "visit on {check}."
        ),
        "{cause} explains why {pet_name} {symptom}. Instead of surgery, {a}'s {pet} gets {cure} {dose} until {check}.",
    ),
)

APPOINTMENT = Scene("appointment", (DOCTOR, SALON, VET))
