"""School and study: a joint project, help before a test, a late essay."""

from study.dialogues.facts import AFTERNOON, DAYS, EVENING, NUMBERS
from study.dialogues.template import Aside, Plot, Scene, Told

_SUBJECTS = (
    "biology", "Latin", "algebra", "chemistry", "French", "statistics", "geography", "physics", "Spanish", "economics",
)  # fmt: skip
_THEMES = (
    "volcanoes", "honey bees", "the Vikings", "solar power", "the plague", "coral reefs", "lighthouses", "earthquakes",
    "the printing press", "whales", "medieval castles", "robots", "the Silk Road",
)  # fmt: skip

PROJECT = Plot(
    name="project",
    slots={
        "theme": _THEMES,
        "other_theme": _THEMES,
        "day": DAYS,
        "time": AFTERNOON,
        "place": (
            "in the library",
            "in the art room",
            "in a café",
            "at {c}'s house",
            "in the computer lab",
            "at the town archive",
        ),
        "job": (
            "draw the maps",
            "build a model",
            "film an interview",
            "write the text",
            "find photographs",
            "speak first",
        ),
        "other_job": (
            "make a poster",
            "check the sources",
            "collect numbers",
            "translate an article",
            "design the slides",
            "prepare a quiz",
        ),
        "late": EVENING,
    },
    lines=(
        (
            "shall we do our project on {other_theme}?",
            "for our project, I thought that {other_theme} would be nice.",
        ),
        (
            "{c} has already taken {other_theme}. I would like {theme} better anyway.",
            "{other_theme} went to {c} this morning. What about {theme}?",
        ),
        (
            "I like {theme}. I could {job}. Let us meet {place} on {day}.",
            "why not? Then I {job}. Are you free on {day}, {place}?",
        ),
        (
            "let us say at {time}. I will {other_job} until then.",
            "I am free from {time}. And I {other_job}, if you don't mind.",
        ),
    ),
    asides=(
        Aside(0, "how many pages must it have?", "ten, with pictures."),
        Aside(0, "is that the one for extra marks?", "yes, and I need them badly."),
        Aside(1, "I also thought about football.", "half the class will do football."),
        Aside(2, "can you get the big stapler?", "if the secretary is in a good mood."),
        Aside(3, "I am not allowed to stay out after {late}.", "don't worry, we will be quick."),
        Aside(3, "what did you get for the last one?", "ask me something else."),
    ),
    summaries=(
        "{c} already has {other_theme}, so {a} and {b} take {theme}. {a} will {job}, {b} will {other_job}.",
        "{a} and {b} meet {place} on {day} at {time} to work on {theme}, as {c} chose {other_theme} first.",
        "{a}'s project with {b} is about {theme}, not {other_theme}: {a} has to {job}, {b} to {other_job} by {day}.",
        (
            "{b} wants {theme}, since {c} does {other_theme}. {b} will {other_job} before they meet {place} on "
            "{day} at {time}."
        ),
    ),
)

_FAVOURS = (
    Told("walk your dog", "walk {b.his} dog"),
    Told("mend your bicycle", "mend {b.his} bicycle"),
    Told("lend you my guitar", "lend {b.him} a guitar"),
    Told("bake you a cake", "bake {b.him} a cake"),
    Told("carry your boxes", "carry {b.his} boxes"),
    Told("paint your room", "paint {b.his} room"),
    Told("cook you dinner", "cook {b.him} dinner"),
    Told("wash your scooter", "wash {b.his} scooter"),
)

TUTOR = Plot(
    name="tutor",
    slots={
        "subject": _SUBJECTS,
        "test": DAYS,
        "day": DAYS,
        "other_day": DAYS,
        "time": EVENING,
        "hobby": (
            "a fencing class",
            "band practice",
            "a swimming gala",
            "a babysitting job",
            "a drama rehearsal",
            "judo training",
            "an orchestra tour",
            "a chess match",
        ),
        "favour": _FAVOURS,
        "gap": (
            "half the rules",
            "all the formulas",
            "the last three chapters",
            "the whole second part",
            "every diagram",
            "the long words",
        ),
        "marks": NUMBERS,
    },
    lines=(
        (
            "my {subject} test is on {test}, and I have forgotten {gap}. Can you help me on {other_day}?",
            "I will fail {subject} on {test}, I don't understand {gap}. Do you have time on {other_day}?",
        ),
        (
            "not on {other_day}, I have {hobby}. What do I get for it, anyway?",
            "{other_day} is {hobby} for me. And what is in it for me?",
        ),
        (
            "I could {favour}. Would {day} suit you better?",
            "what about {day}, then? And I will {favour}.",
        ),
        (
            "it is a deal. Come to my place at {time}, and bring your notes.",
            "now we are talking. I will be at home from {time}.",
        ),
    ),
    asides=(
        Aside(0, "did you not write anything down?", "I drew horses, mostly."),
        Aside(0, "who is your teacher?", "the one with the bow tie."),
        Aside(1, "you did so well in June.", "that was pure luck, I got {marks} points."),
        Aside(2, "can you not ask {c}?", "{c} knows even less than I do."),
        Aside(3, "may I use a calculator?", "only for the last page."),
        Aside(3, "is the bus line running again?", "no, you had better walk."),
    ),
    summaries=(
        (
            "{a} needs help with {subject} before {test}. {b} has {hobby} on {other_day} and teaches {a.him} on "
            "{day} at {time}."
        ),
        "{b} will explain {gap} to {a} on {day} at {time}; in return {a} is going to {favour}.",
        "if {b} prepares {a} for {subject:a} test on {test}, {a} will {favour}; they study on {day}, {time}.",
        "because of {hobby}, {b} tutors {a} in {subject} on {day}, not {other_day}; {a} will {favour}.",
    ),
)

ESSAY = Plot(
    name="essay",
    roles=("teacher", "professor", "tutor"),
    slots={
        "theme": _THEMES,
        "cause": (
            Told("I had the flu", "{a} had the flu"),
            Told("my sister got married", "{a}'s sister got married"),
            Told("our flat was flooded", "{a}'s flat was flooded"),
            Told("somebody stole my notes", "somebody stole {a}'s notes"),
            Told("I was in hospital", "{a} was in hospital"),
            Told("my file was deleted", "{a}'s file was deleted"),
        ),
        "day": DAYS,
        "penalty": ("one mark", "five points", "ten points", "half a grade", "two marks", "a full grade"),
        "words": ("800", "900", "1200", "1500", "1800", "2000", "2500"),
        "way": ("by email", "on paper", "with a signed note", "at the porter's desk", "in two copies", "in person"),
        "room": NUMBERS,
        "time": AFTERNOON,
    },
    lines=(
        (
            "my essay on {theme} is not finished, because {cause}. May I hand it in next month?",
            "I could not write about {theme}, {cause}. Would next month be all right?",
        ),
        (
            "next month is out of the question. I can wait until {day}, but it will cost you {penalty}.",
            "next month is too late. If it comes by {day}, I only take off {penalty}.",
        ),
        (
            "I accept the loss. Must it still be so long?",
            "{day} is fair. Could it be a little shorter, perhaps?",
        ),
        (
            "{words} words will do. Let me have it {way}.",
            "let us say {words} words. I want it {way}, please.",
        ),
    ),
    asides=(
        Aside(0, "have you at least made a plan?", "yes, it covers a whole wall."),
        Aside(0, "did you read the book I gave you?", "twice, the ending is sad."),
        Aside(1, "could I give a talk in place of it?", "no, we have too many talks."),
        Aside(1, "is there still room in the {time} seminar?", "no, it has been full for weeks."),
        Aside(2, "how is the rest of your work?", "all done, apart from the drawings."),
        Aside(3, "where will the exam be?", "in hall {room}, as far as I know."),
    ),
    summaries=(
        "{cause}, so {b} lets {a.him} hand in the essay about {theme} by {day}, {way}, for a loss of {penalty}.",
        "{a} wants another month for an essay on {theme}. {b} grants {day}, minus {penalty}, for {words} words.",
        "{b} will accept {words} words on {theme} from {a} until {day}, {way}, but takes off {penalty}.",
        "because {cause}, {a.he} may deliver {words} words about {theme} {way} by {day}, losing {penalty}.",
    ),
)

SCHOOL = Scene("school", (PROJECT, TUTOR, ESSAY))
