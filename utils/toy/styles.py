"""The look of toy streets: styles of six cities, and the light of each hour and weather."""

from typing import NamedTuple

Color = tuple[int, int, int]


class CityStyle(NamedTuple):
    """The look of a city."""

    facades: tuple[Color, ...]
    trim: Color  # of window frames, cornices
    roof: Color
    gables: bool  # pitched roofs with gables, else flat ones with a cornice
    floors: tuple[int, int]
    window: tuple[float, float, float]  # width, height, spacing in metres
    greenery: float  # 0..1: share of the possible trees that are drawn
    foliage: tuple[Color, ...]
    road: Color
    pavement: Color
    # Shares of the houses, 0..1, that have ...
    shops: float  # shop windows on the ground floor
    balconies: float
    bars: float  # window bars: a cross of them in each window
    shutters: float
    glass: float  # a curtain wall: glass from edge to edge, held by thin bars
    courses: float  # visible courses of brick or stone


class Light(NamedTuple):
    """The light of an hour in one weather."""

    color: tuple[float, float, float]  # every surface colour is multiplied with it
    sky_top: Color
    sky_horizon: Color  # also the colour of the haze
    sun: float  # -1: from the left, 1: from the right
    contrast: float  # between walls in the sun and in the shade, 0..1
    shadow: int  # opacity of the shade under things, 0..255
    cast: float  # metres of cast shadow to the side for a metre of height, 0 for none
    lit_windows: float  # share
    lamps: float  # strength of the glow of lamps, 0..1
    haze: tuple[float, float]  # k1, k2: at z metres haze : colour = k1 z + k2 z^2 : 1
    clouds: float  # cover of the sky, -1..1
    stars: bool
    wet: float  # reflectivity of the ground, 0..1; above 0 it rains


CITY_STYLES = {
    "Backsteinhafen": CityStyle(
        ((150, 72, 56), (128, 60, 50), (168, 92, 66), (116, 66, 58)), (226, 220, 208), (70, 62, 64),
        True, (3, 5), (1.1, 1.7, 2.4), 0.55, ((74, 104, 48), (92, 116, 50)),
        (98, 98, 104), (168, 150, 142), 0.4, 0.2, 0.8, 0.0, 0.0, 1.0,
    ),
    "Sonnental": CityStyle(
        ((232, 196, 128), (222, 164, 108), (238, 214, 168), (212, 142, 110)), (250, 240, 220),
        (176, 88, 58), True, (2, 4), (1.0, 1.5, 2.6), 0.65, ((88, 122, 44), (112, 132, 58)),
        (118, 112, 106), (206, 190, 164), 0.3, 0.45, 0.2, 0.75, 0.0, 0.0,
    ),
    "Glasquai": CityStyle(
        ((120, 150, 172), (142, 166, 178), (100, 124, 150), (168, 178, 186)), (206, 214, 220),
        (90, 98, 108), False, (6, 11), (2.3, 2.3, 2.7), 0.45, ((66, 112, 60), (84, 128, 62)),
        (84, 86, 92), (182, 184, 186), 0.5, 0.1, 0.0, 0.0, 0.7, 0.0,
    ),
    "Weissenau": CityStyle(
        ((236, 234, 226), (224, 222, 216), (240, 230, 210), (214, 220, 222)), (120, 128, 132),
        (112, 84, 76), True, (2, 3), (1.3, 1.4, 2.9), 0.95, ((70, 118, 52), (98, 140, 60)),
        (108, 108, 110), (190, 184, 178), 0.15, 0.4, 0.7, 0.35, 0.0, 0.0,
    ),
    "Plattenberg": CityStyle(
        ((168, 164, 156), (150, 148, 146), (182, 170, 150), (140, 146, 156)), (204, 202, 196),
        (110, 108, 104), False, (5, 8), (1.7, 1.4, 2.5), 0.6, ((82, 104, 56), (100, 112, 58)),
        (104, 102, 100), (158, 156, 154), 0.25, 0.75, 0.1, 0.0, 0.0, 0.4,
    ),
    "Tulpenried": CityStyle(
        ((196, 84, 84), (92, 140, 156), (226, 178, 84), (126, 158, 108), (214, 140, 158)),
        (246, 244, 238), (92, 76, 84), True, (3, 4), (1.2, 1.8, 2.1), 0.7,
        ((84, 126, 50), (118, 144, 62)), (124, 104, 98), (192, 172, 158),
        0.45, 0.15, 0.9, 0.2, 0.0, 0.3,
    ),
}  # fmt: skip

# One row for each hour and weather: the light's colour, the sky above and at the horizon.
_SKIES = {
    "morning": {
        "clear": ((1.02, 0.93, 0.81), (126, 168, 214), (252, 226, 190)),
        "cloudy": ((0.90, 0.82, 0.72), (164, 164, 170), (234, 212, 178)),
        "rain": ((0.76, 0.69, 0.60), (124, 122, 124), (200, 178, 146)),
        "fog": ((0.90, 0.82, 0.71), (206, 190, 164), (236, 214, 176)),
    },
    "noon": {
        "clear": ((1.05, 1.05, 1.03), (80, 142, 214), (206, 224, 238)),
        "cloudy": ((0.92, 0.94, 0.95), (150, 164, 180), (216, 222, 228)),
        "rain": ((0.77, 0.81, 0.84), (124, 138, 152), (182, 192, 202)),
        "fog": ((0.92, 0.95, 0.97), (190, 202, 212), (214, 222, 228)),
    },
    "dusk": {
        "clear": ((0.70, 0.57, 0.57), (72, 72, 124), (248, 156, 96)),
        "cloudy": ((0.62, 0.50, 0.53), (84, 76, 108), (208, 134, 108)),
        "rain": ((0.53, 0.43, 0.48), (68, 60, 90), (164, 104, 96)),
        "fog": ((0.60, 0.48, 0.50), (122, 96, 112), (176, 122, 110)),
    },
    "night": {
        "clear": ((0.36, 0.37, 0.47), (10, 14, 36), (50, 54, 86)),
        "cloudy": ((0.33, 0.34, 0.40), (22, 24, 34), (56, 56, 70)),
        "rain": ((0.29, 0.30, 0.37), (16, 18, 28), (44, 46, 62)),
        "fog": ((0.33, 0.34, 0.40), (34, 36, 48), (58, 60, 76)),
    },
}  # fmt: skip

# For each hour in clear weather: sun, contrast, shadow, cast, lit windows, lamps.
_HOURS = {
    "morning": (-1.0, 1.0, 80, 0.6, 0.05, 0.0),
    "noon": (1.0, 1.0, 110, 0.25, 0.0, 0.0),
    "dusk": (1.0, 1.0, 60, 0.75, 0.35, 0.6),
    "night": (-1.0, 0.6, 60, 0.0, 0.4, 1.0),
}

# For each weather: factors of contrast and shadow, minimum of lamps, haze, clouds, wet.
_AIR = {
    "clear": (1.0, 1.0, 0.0, (1 / 380, 0.0), -0.15, 0.0),
    "cloudy": (0.4, 0.7, 0.0, (1 / 300, 0.0), 0.25, 0.0),
    "rain": (0.3, 0.6, 0.25, (1 / 160, 0.0), 0.2, 1.0),
    "fog": (0.2, 0.5, 0.25, (1 / 150, 1 / 40**2), -1.0, 0.0),
}

TIMES_OF_DAY = tuple(_SKIES)
WEATHERS = tuple(_AIR)


def light_of(time_of_day: str, weather: str) -> Light:
    """Return the light of one of TIMES_OF_DAY in one of WEATHERS."""
    color, top, horizon = _SKIES[time_of_day][weather]
    sun, contrast, shadow, cast, windows, lamps = _HOURS[time_of_day]
    contrast_factor, shadow_factor, min_lamps, haze, clouds, wet = _AIR[weather]
    clear = weather == "clear"
    return Light(
        color,
        top,
        horizon,
        sun,
        contrast * contrast_factor,
        int(shadow * shadow_factor),
        cast if clear else 0.0,
        windows,
        max(lamps, min_lamps),
        haze,
        clouds,
        clear and time_of_day == "night",
        wet,
    )


CAR_COLORS = (
    (188, 30, 36), (30, 62, 140), (228, 228, 230), (34, 34, 40), (150, 154, 160), (70, 76, 84),
    (206, 170, 60), (48, 108, 84), (200, 204, 210), (96, 30, 40),
)  # fmt: skip
CLOTHES = (
    (40, 50, 90), (150, 40, 50), (60, 60, 64), (190, 160, 110), (60, 110, 90), (216, 214, 208),
    (230, 150, 40), (112, 72, 130), (28, 28, 32),
)  # fmt: skip
TROUSERS = ((44, 54, 88), (58, 58, 62), (28, 28, 34), (150, 130, 100), (92, 80, 70))
SKIN = ((236, 196, 168), (206, 158, 124), (150, 104, 76), (96, 66, 50))
HAIR = ((40, 30, 24), (110, 78, 40), (70, 50, 34), (176, 168, 160))
GLASS, RUBBER, STEEL, WHITE = (58, 74, 88), (26, 26, 28), (122, 126, 130), (232, 232, 226)
WARM, RED, LAMP = (255, 208, 128), (226, 34, 28), (255, 244, 214)
GRASS, BARK, STONE = (112, 138, 66), (84, 66, 52), (150, 142, 130)
