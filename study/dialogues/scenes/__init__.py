"""The scenes, in a fixed order: the order is part of what a seed means."""

from study.dialogues.scenes.appointment import APPOINTMENT
from study.dialogues.scenes.family import FAMILY
from study.dialogues.scenes.housing import HOUSING
from study.dialogues.scenes.leisure import LEISURE
from study.dialogues.scenes.repair import REPAIR
from study.dialogues.scenes.restaurant import RESTAURANT
from study.dialogues.scenes.school import SCHOOL
from study.dialogues.scenes.shopping import SHOPPING
from study.dialogues.scenes.travel import TRAVEL
from study.dialogues.scenes.work import WORK

ALL_SCENES = (APPOINTMENT, SHOPPING, TRAVEL, WORK, FAMILY, RESTAURANT, REPAIR, SCHOOL, HOUSING, LEISURE)
