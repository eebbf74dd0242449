"""Streets drawn from a seed, in the Cityscapes layout, with every city and time of day known."""

from utils.toy.streets import CITIES, TIMES_OF_DAY, WEATHERS, draw_street

__all__ = ["CITIES", "TIMES_OF_DAY", "WEATHERS", "draw_street"]
