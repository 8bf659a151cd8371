"""Pools of facts that several scenes draw from: days, clock times, prices, places."""


def clock(first_hour: int, last_hour: int) -> tuple[str, ...]:
    """Give every fifth minute from first_hour:05 to last_hour:55, on a twelve-hour clock, without am or pm."""
    return tuple(
        f"{(hour - 1) % 12 + 1}:{minute:02d}" for hour in range(first_hour, last_hour + 1) for minute in range(5, 60, 5)
    )


def dollars(lowest: int, highest: int, step: int) -> tuple[str, ...]:
    """Give prices in whole dollars from lowest to highest, both included where the step meets them."""
    return tuple(f"${amount}" for amount in range(lowest, highest + 1, step))


DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November")
DATES = tuple(f"{month} {day}" for month in MONTHS for day in (2, 3, 5, 8, 11, 14, 17, 20, 23, 26, 28))
NUMBERS = ("three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")

MORNING = clock(8, 11)
AFTERNOON = clock(13, 17)
EVENING = clock(18, 21)
EARLY_EVENING = clock(18, 19)
LATE_EVENING = clock(20, 22)

SMALL_PRICES = dollars(3, 19, 1)
LOW_PRICES = dollars(21, 58, 1)
HIGH_PRICES = dollars(64, 98, 1)
BIG_PRICES = dollars(105, 390, 5)
RENTS = dollars(720, 1480, 20)
LOW_RENTS = dollars(310, 690, 10)

CITIES = (
    "Lisbon", "Oslo", "Vienna", "Prague", "Dublin", "Porto", "Geneva", "Hamburg", "Naples", "Seville", "Krakow",
    "Ghent", "Bergen", "Lyon", "Turin", "Zagreb", "Malmo", "Cork", "Basel", "Riga", "Tallinn", "Verona", "Leeds",
    "Bristol",
)  # fmt: skip
STREETS = (
    "Mill Lane", "Harbour Road", "Chapel Street", "Elm Avenue", "Quarry Hill", "Station Road", "Orchard Street",
    "Castle Square", "Ferry Lane", "Willow Close", "Bakers Row", "Garden Terrace", "Dock Street", "Abbey Road",
    "Linden Street", "Windmill Hill",
)  # fmt: skip
MEETING_PLACES = (
    "the fountain",
    "platform two",
    "the old bridge",
    "gate seven",
    "Market Square",
    "the tram stop",
    "Castle Bridge",
    "the clock tower",
    "bus stop nine",
    "Victoria Gate",
    "the bakery",
    "pier four",
)
SURNAMES = (
    "Patel", "Novak", "Okafor", "Lindqvist", "Moreau", "Tanaka", "Fischer", "Brennan", "Castillo", "Haddad", "Kowalski",
    "Mbeki", "Sorensen", "Rossi", "Whitaker", "Ferreira", "Yamada", "Petrov", "Gallagher", "Nakamura",
)  # fmt: skip
COLOURS = (
    "green", "purple", "grey", "yellow", "brown", "white", "navy", "pink", "turquoise", "beige", "crimson", "cream",
)  # fmt: skip
