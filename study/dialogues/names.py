"""The people of the dialogues."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Person:
    """A speaker or someone spoken of; `str` gives the name as it stands inside a sentence ("Maya", "the waiter").

    label: what stands before the colon of a turn ("Maya", "Waiter"). he, him, his: the person's pronouns, whichever
    they are.
    """

    name: str
    label: str
    he: str
    him: str
    his: str

    def __str__(self) -> str:
        """Give the name."""
        return self.name


def role(title: str) -> Person:
    """Give a person known by a role alone ("receptionist")."""
    return Person(f"the {title}", title.capitalize(), "they", "them", "their")


def _named(names: str, he: str, him: str, his: str) -> tuple[Person, ...]:
    return tuple(Person(name, name, he, him, his) for name in names.split())


_WOMEN = """
Maya Ingrid Chloe Amara Yuki Rosa Fatima Nadia Greta Leila Sofia Hannah Priya Zoe Marta Elena Aisha Nora Carmen Freya
Tessa Bianca Olga Mei Daphne Ruth Simone Paula Kezia Anika Lucia Wanda Iris Helga Thandi Joanna Megan Selma Ludmila
Noemi Camille Farah Gloria Harriet Ines Jasmine Kirsten Lorena Miriam Odette
"""
_MEN = """
Omar Felix Kenji Mateo Tobias Ravi Hugo Emeka Stefan Liam Jonas Pedro Tariq Anders Callum Dmitri Enzo Farid Gavin
Henrik Ismael Jamal Klaus Luca Milan Nils Oscar Pavel Quentin Rafael Samir Tomas Uri Viktor Walter Xavier Yusuf Zoltan
Arjun Bruno Cedric Dario Elias Fergus Gustav Hassan Igor Jerome Kofi Lorenzo
"""

PEOPLE: tuple[Person, ...] = _named(_WOMEN, "she", "her", "her") + _named(_MEN, "he", "him", "his")
