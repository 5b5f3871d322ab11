"""MovieLens as the runtime sees it: a catalogue, time-ordered ratings per user, a split by USER, and serving's block window."""

import csv
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

MAX_LENGTH = 200  # events of a window
BLOCK_LENGTH = 50  # what a full window drops at once
PADDED_LENGTH = 211  # 200 + 10 + 1, the reference's max_sequence_len + max_output_len for MovieLens


@dataclass(frozen=True)
class History:
    """One user's ratings, oldest first; ties keep the file's order."""

    user: str
    ids: np.ndarray
    """Embedding rows, 1-based."""
    times: np.ndarray
    """Seconds."""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Split:
    fit: list[History]
    early_stopping: list[History]
    unseen: list[History]


@dataclass(frozen=True)
class Catalogue:
    movie_ids: list[int]
    """Ascending; index i is embedding row i + 1."""
    features: np.ndarray
    """[V+1, F] genres and release year; row 0 is zero."""

    def entity_ids(self) -> list[str]:
        return [f"movie:{movie}" for movie in self.movie_ids]


def window_start(events: int) -> int:
    """Where the window over the newest of `events` begins: whole blocks are dropped, so a full one holds 151..200."""
    return BLOCK_LENGTH * math.ceil(max(0, events - MAX_LENGTH) / BLOCK_LENGTH)


def read_catalogue(folder: Path) -> Catalogue:
    with open(folder / "movies.csv", encoding="utf-8", newline="") as file:
        movies = sorted(csv.DictReader(file), key=lambda movie: int(movie["movieId"]))
    genres = sorted({genre for movie in movies for genre in movie["genres"].split("|")})
    features = np.zeros((len(movies) + 1, len(genres) + len(_YEAR_KNOTS)), np.float32)
    for row, movie in enumerate(movies, start=1):
        own = movie["genres"].split("|")
        for genre in own:
            features[row, genres.index(genre)] = len(own) ** -0.5
        features[row, len(genres) :] = _year_features(movie["title"])
    return Catalogue([int(movie["movieId"]) for movie in movies], features)


_YEAR_KNOTS = np.array([1920, 1935, 1950, 1960, 1970, 1975, 1980, 1985, 1990, 1993, 1996, 1999, 2002, 2005, 2008, 2011, 2014, 2018])


def _year_features(title: str) -> np.ndarray:
    """The year of "Toy Story (1995)" as weights of its two nearest knots; zeros where the title has none."""
    years = re.findall(r"\((\d{4})(?:[-–]\d{0,4})?\)", title)
    if not years:
        return np.zeros(len(_YEAR_KNOTS))
    return np.array([np.interp(int(years[-1]), _YEAR_KNOTS, knot) for knot in np.eye(len(_YEAR_KNOTS))])


def read_histories(folder: Path, catalogue: Catalogue) -> list[History]:
    row_of = {movie: row for row, movie in enumerate(catalogue.movie_ids, start=1)}
    events: dict[str, list[tuple[int, int]]] = {}
    with open(folder / "ratings.csv", encoding="utf-8", newline="") as file:
        for rating in csv.DictReader(file):
            events.setdefault(rating["userId"], []).append((int(rating["timestamp"]), row_of[int(rating["movieId"])]))
    histories = []
    for user, own in events.items():
        own.sort(key=lambda event: event[0])  # stable: ties keep the file's order
        times, ids = zip(*own)
        histories.append(History(user, np.array(ids, np.int64), np.array(times, np.int64)))
    return histories


def split_by_user(histories: list[History], seed: int, early_stopping_users: int) -> Split:
    """A tenth of the users is never seen in training; a small slice of the others only decides when to stop."""
    order = np.random.default_rng(seed).permutation(len(histories))
    unseen = len(histories) // 10
    shuffled = [histories[index] for index in order]
    return Split(
        fit=shuffled[unseen + early_stopping_users :],
        early_stopping=shuffled[unseen : unseen + early_stopping_users],
        unseen=shuffled[:unseen],
    )
