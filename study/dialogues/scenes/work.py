"""Work: a meeting that moves, a late report, a swapped shift."""

from study.dialogues.facts import AFTERNOON, DAYS, EVENING, MORNING
from study.dialogues.template import Aside, Plot, Scene, Told

_TOPICS = (
    "budget", "website", "hiring", "advertising", "safety", "packaging", "office move", "payroll", "merger",
    "warehouse",
)  # fmt: skip
_DOCUMENTS = (
    "sales report", "tax form", "user manual", "press release", "contract draft", "market survey", "annual review",
    "grant proposal", "price list",
)  # fmt: skip

MEETING = Plot(
    name="meeting",
    slots={
        "topic": _TOPICS,
        "day": DAYS,
        "time": MORNING,
        "new_day": DAYS,
        "new_time": AFTERNOON,
        "clash": (
            Told("I have a dentist appointment", "{b} has a dentist appointment"),
            Told("I am interviewing an intern", "{b} is interviewing an intern"),
            Told("my car is being inspected", "{b}'s car is being inspected"),
            Told("I have a call with the bank", "{b} has a call with the bank"),
            Told("I fly to a customer", "{b} flies to a customer"),
            Told("I promised to train the new team", "{b} promised to train the new team"),
        ),
        "room": (
            "the canteen",
            "room nine",
            "studio three",
            "the annex",
            "office seven",
            "lab two",
            "the archive",
        ),
        "task": (
            "print the figures",
            "prepare slides",
            "order sandwiches",
            "invite the director",
            "take the minutes",
            "bring the contracts",
            "set up the projector",
        ),
    },
    lines=(
        (
            "can we hold the {topic} meeting on {day} at {time}?",
            "I would like to discuss the {topic} plans with you on {day} at {time}.",
        ),
        (
            "I can't on {day}, {clash}. {new_day} at {new_time} would be better.",
            "{day} is bad, because {clash}. Could we say {new_day}, {new_time}?",
        ),
        (
            "all right, {new_day} works for me. Which room shall I book?",
            "let me look. I am free on {new_day}. Where do we meet?",
        ),
        (
            "let us take {room}, it is quiet there. And {c} should {task}, I think.",
            "in {room}, I would say. I will ask {c} to {task}.",
        ),
    ),
    asides=(
        Aside(0, "is it urgent?", "the board wants an answer this month."),
        Aside(0, "how long will it take?", "an hour, if nobody starts an argument."),
        Aside(1, "and a video call instead?", "no, the line keeps breaking up."),
        Aside(2, "should the lawyers join us?", "better not, they talk for ages."),
        Aside(3, "the coffee machine is broken again.", "I know, I have started to drink tea."),
        Aside(3, "did you get my email about the parking?", "I did, but I have not read it."),
    ),
    summaries=(
        "{clash} on {day}, so {a} and {b} discuss the {topic} in {room} on {new_day} at {new_time}; {c} will {task}.",
        (
            "{a} proposes {day} for the {topic} meeting. {b} prefers {new_day} at {new_time}, in {room}, where "
            "{c} should {task}."
        ),
        "the {topic} meeting moves to {new_day}, {new_time}, in {room}, because {clash}.",
        "{b} cannot talk about the {topic} on {day}. They meet {new_day} at {new_time} in {room}; {c} has to {task}.",
    ),
)

REPORT = Plot(
    name="report",
    slots={
        "document": _DOCUMENTS,
        "day": DAYS,
        "new_day": DAYS,
        "cause": (
            Told("my laptop died", "{b.his} laptop died"),
            Told("the figures came late", "the figures came late"),
            Told("I lost two pages", "{b.he} lost two pages"),
            Told("the client changed everything", "the client changed everything"),
            Told("nobody answered my questions", "nobody answered {b.his} questions"),
            Told("my translator is ill", "{b.his} translator is ill"),
            Told("the server was down", "the server was down"),
        ),
        "part": (
            "the charts",
            "page layout",
            "chapter nine",
            "both tables",
            "the footnotes",
            "proofreading",
            "all photographs",
        ),
        "reader": ("the auditors", "the ministers", "the investors", "the directors", "the printers", "the unions"),
        "hour": EVENING,
    },
    lines=(
        (
            "is the {document} ready? I expect it by {day}.",
            "I hope you remember that the {document} is due on {day}.",
        ),
        (
            "I won't make it, {cause}. May I have another two weeks?",
            "I am behind, because {cause}. Could I hand it in next month?",
        ),
        (
            "so long a delay is impossible, {reader} are waiting. {new_day} is the latest.",
            "you can't have that long, {reader} need it. I can give you until {new_day}, not a day more.",
        ),
        (
            "{new_day} it is, if {c} does {part} for me.",
            "all right, but then I will let {c} take care of {part}.",
        ),
    ),
    asides=(
        Aside(0, "did you not get my note?", "no, my inbox has been full since {hour} yesterday."),
        Aside(0, "do you mean the short version?", "no, the full one, in colour."),
        Aside(1, "why did you not tell me earlier?", "I was hoping for a miracle."),
        Aside(2, "could the interns help?", "they are all at a course this week."),
        Aside(3, "is the office open at the weekend?", "only the side door, and mind the alarm."),
        Aside(3, "do we still have paper?", "one box, on top of the cupboard."),
    ),
    summaries=(
        "{b} is late with the {document} because {cause}. {a} gives {b.him} until {new_day}, since {reader} need it.",
        "{b} cannot deliver the {document} by {day}: {cause}. {a} allows {new_day} if {c} takes over {part}.",
        "as {reader} are waiting, {a} lets {b} finish the {document} by {new_day} at the latest; {c} does {part}.",
        (
            "{a} refuses {b} a long extension for the {document}. It moves from {day} to {new_day}, with {part} "
            "left to {c}."
        ),
    ),
)

SHIFT = Plot(
    name="shift",
    slots={
        "day": DAYS,
        "new_day": DAYS,
        "start": MORNING,
        "job": (
            "reception",
            "gate four",
            "the cloakroom",
            "counter nine",
            "the ticket booth",
            "desk two",
            "the loading bay",
            "till five",
        ),
        "need": (
            Told("my daughter is in a play", "{a}'s daughter is in a play"),
            Told("I am moving house", "{a} is moving house"),
            Told("my parents are coming", "{a}'s parents are coming"),
            Told("I have a driving test", "{a} has a driving test"),
            Told("my cat needs an operation", "{a}'s cat needs an operation"),
            Told("I am running a marathon", "{a} is running a marathon"),
        ),
        "conflict": (
            Told("I sing in a choir then", "{b} sings in a choir"),
            Told("I have night school", "{b} has night school"),
            Told("I look after my nephew", "{b} looks after a nephew"),
            Told("I coach a team that day", "{b} coaches a team"),
            Told("I see my therapist", "{b} sees a therapist"),
        ),
        "thanks": (
            "pizza",
            "red wine",
            "cinema tickets",
            "homemade jam",
            "a lift to the airport",
            "cheesecake",
        ),
        "hour": EVENING,
    },
    lines=(
        (
            "could you work for me at {job} on {day}? {need}.",
            "I need someone at {job} on {day}, because {need}. Would you do it?",
        ),
        (
            "the whole day is too much, {conflict}. Ask {c}.",
            "I would, but {conflict}. What about {c}?",
        ),
        (
            "{c} said no already. Please, I will take your {new_day}, and there is {thanks} in it for you.",
            "{c} is on holiday. What if I do {new_day} for you, and give you {thanks}?",
        ),
        (
            "{thanks}? Then I cancel my plans. I will be there at {start}.",
            "you know my weak spot. All right, I will skip it and start at {start}.",
        ),
    ),
    asides=(
        Aside(0, "does the boss know about this?", "not yet, I am asking you first."),
        Aside(0, "is it the early one?", "yes, I am afraid so."),
        Aside(1, "my back is killing me, too.", "you should lift with your knees."),
        Aside(2, "is the new scanner difficult?", "no, it beeps when it is unhappy."),
        Aside(3, "the key is in the blue drawer.", "I know, next to the stamps."),
        Aside(3, "I stayed until {hour} yesterday.", "you really work too much."),
    ),
    summaries=(
        "{need}, so {b} covers {job} on {day} from {start}, in return for {thanks} and a free {new_day}.",
        "{a} swaps {day} for {new_day} with {b}, who will be at {job} from {start} in exchange for {thanks}.",
        "{conflict}, yet agrees to replace {a} at {job} on {day}, won over by {thanks}.",
        "{need}. {c} is no help, but {b} takes over at {job} on {day} at {start}, for {thanks}.",
    ),
)

WORK = Scene("work", (MEETING, REPORT, SHIFT))
