"""Checks of settings, made where a setting is born: the message names the field and the value."""


def between(name: str, value: float, low: float, high: float) -> None:
    """Raise ValueError unless low <= value <= high."""
    if not low <= value <= high:
        raise ValueError(f"{name} must be between {low} and {high}, not {value}")


def below(name: str, value: float, high: float) -> None:
    """Raise ValueError unless 0 <= value < high."""
    if not 0.0 <= value < high:
        raise ValueError(f"{name} must be at least 0 and below {high}, not {value}")


def at_least(name: str, value: int, low: int) -> None:
    """Raise ValueError unless value >= low."""
    if value < low:
        raise ValueError(f"{name} must be at least {low}, not {value}")


def positive(name: str, value: float) -> None:
    """Raise ValueError unless value is positive and finite."""
    if not 0.0 < value < float("inf"):
        raise ValueError(f"{name} must be positive and finite, not {value}")


def one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless value is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}")
