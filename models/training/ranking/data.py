"""MovieLens as one sequence of ratings and tags per user, in the stream's own order, with labels, and split by TIME.

Letters: n events of a user, K tasks, S item statistics, V catalogue size.
"""

import csv
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from movielens import Catalogue, read_catalogue

ACTIONS = ("rating", "tag")
RATING, TAG = 1, 2
"""Bits of a token's actions, in the order of ACTIONS."""
VALUE_EDGES = [1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0]
"""Half stars; bucket = number of edges <= value, so that each of the ten values has its own."""
TASKS = ("like", "love", "tag")
STATISTICS = 5
PRIOR = 10.0
"""Events that the global rate counts for in an item's rate."""


@dataclass(frozen=True)
class UserEvents:
    """One user's actions, oldest first; equal times in the stream's order: ratings before tags, each in the order of its file."""

    user: str
    entities: np.ndarray
    """[n] embedding rows, from 1."""
    bits: np.ndarray
    """[n] which actions."""
    buckets: np.ndarray
    """[n] row of the value embedding from 1, 0: no value."""
    times: np.ndarray
    """[n] seconds."""
    labels: np.ndarray
    """[n, K] what was done with the item, NaN where this event does not tell."""
    statistics: np.ndarray
    """[n, S] of the item, from the events of all users before this one."""
    order: np.ndarray
    """[n] place in the stream of everybody's events."""

    def __len__(self) -> int:
        return len(self.entities)


@dataclass(frozen=True)
class Stream:
    catalogue: Catalogue
    years: np.ndarray
    """[V+1] release year by row, 0 where unknown: what was in the catalogue when."""
    users: list[UserEvents]
    snapshots: dict[int, np.ndarray]
    """Item statistics [V+1, S] before the event at a place of the stream."""
    length: int


def read_stream(folder: Path, snapshots_at: Callable[[int], set[int]], limit_users: int | None = None) -> Stream:
    """
    Rows are given by year of release, so that a catalogue that grows keeps the rows it has.

    snapshots_at: from the stream's length to the places for which the statistics of all items are kept.
    """
    catalogue, years = by_release(read_catalogue(folder), folder)
    row_of = {movie: row for row, movie in enumerate(catalogue.movie_ids, start=1)}
    raw = []
    for bit, name in ((RATING, "ratings"), (TAG, "tags")):
        with open(folder / f"{name}.csv", encoding="utf-8", newline="") as file:
            for line in csv.DictReader(file):
                if limit_users is None or int(line["userId"]) <= limit_users:
                    raw.append((int(line["timestamp"]), line["userId"], row_of[int(line["movieId"])], bit, float(line.get("rating", "nan"))))
    raw.sort(key=lambda event: event[0])  # stable: ratings before tags, then the order of the file
    statistics = ItemStatistics(len(years))
    wanted = snapshots_at(len(raw))
    columns: dict[str, list] = {}
    snapshots = {}
    for place, (time, user, row, bit, value) in enumerate(raw):
        if place in wanted:
            snapshots[place] = statistics.all()
        bucket = 0 if bit == TAG else 1 + sum(edge <= value for edge in VALUE_EDGES)
        columns.setdefault(user, []).append((row, bit, bucket, time, labels_of(bit, value), statistics.of(row), place))
        statistics.add(user, row, bit, value)
    snapshots[len(raw)] = statistics.all()
    users = []
    for user, own in columns.items():
        entities, bits, buckets, times, labels, of_item, order = zip(*own)
        whole = [np.array(column, np.int64) for column in (entities, bits, buckets, times)]
        users.append(UserEvents(user, *whole, np.array(labels, np.float32), np.array(of_item, np.float32), np.array(order)))
    return Stream(catalogue, years, users, snapshots, len(raw))


def labels_of(bit: int, value: float) -> tuple[float, float, float]:
    """TASKS of one action: a rating says like and love and that it is no tag; a tag says nothing of liking."""
    return (float(value >= 4), float(value >= 4.5), 0.0) if bit == RATING else (np.nan, np.nan, 1.0)


def by_release(catalogue: Catalogue, folder: Path) -> tuple[Catalogue, np.ndarray]:
    with open(folder / "movies.csv", encoding="utf-8", newline="") as file:
        titles = {int(movie["movieId"]): movie["title"] for movie in csv.DictReader(file)}
    year_of = {movie: int((re.findall(r"\((\d{4})(?:[-–]\d{0,4})?\)", title) or ["0"])[-1]) for movie, title in titles.items()}
    order = sorted(range(len(catalogue.movie_ids)), key=lambda i: (year_of[catalogue.movie_ids[i]], catalogue.movie_ids[i]))
    movies = [catalogue.movie_ids[i] for i in order]
    features = np.concatenate([catalogue.features[:1], catalogue.features[1:][order]])
    return Catalogue(movies, features), np.array([0, *(year_of[movie] for movie in movies)])


class ItemStatistics:
    """
    What is known of every item so far. In training an event sees these as they were before it, never its own label (the ordered
    target statistics of Prokhorenkova et al., CatBoost, arXiv 1706.09516); a bundle holds them as of its date, inside its table.
    """

    def __init__(self, rows: int):
        self.ratings, self.likes, self.loves, self.tags, self.residuals = np.zeros((5, rows))
        self.users: dict[str, tuple[int, float]] = {}
        self.everything = np.array([2.0, 1.0, 0.5])  # ratings, likes, loves

    def add(self, user: str, row: int, bit: int, value: float) -> None:
        if bit == TAG:
            self.tags[row] += 1
            return
        count, total = self.users.get(user, (0, 0.0))
        self.residuals[row] += value - (total + 3.5 * 5) / (count + 5)
        self.users[user] = (count + 1, total + value)
        self.ratings[row] += 1
        self.likes[row] += value >= 4
        self.loves[row] += value >= 4.5
        self.everything += (1, value >= 4, value >= 4.5)

    def of(self, row: int | slice) -> np.ndarray:
        """[S] of a row, or [rows, S]: like and love rate and mean residual against the user's mean, shrunk; log of ratings and of tags."""
        ratings = self.ratings[row]
        _, like, love = self.everything / self.everything[0]
        parts = (
            4 * ((self.likes[row] + PRIOR * like) / (ratings + PRIOR) - like),
            4 * ((self.loves[row] + PRIOR * love) / (ratings + PRIOR) - love),
            2 * self.residuals[row] / (ratings + PRIOR),
            np.log1p(ratings) / 3 - 1,
            np.log1p(self.tags[row]),
        )
        return np.stack(parts, -1).astype(np.float32)

    def all(self) -> np.ndarray:
        return self.of(slice(None))


def popularity_of(statistics: np.ndarray) -> np.ndarray:
    """[rows] how many ratings an item has, of statistics [rows, S]."""
    return np.expm1(3 * (statistics[:, 3] + 1)).round().astype(np.float32)


def merge_actions(user: UserEvents, chosen: np.ndarray) -> UserEvents:
    """The user's events with a rating and the tag right after it on the same item as ONE token of both actions, where `chosen` [n-1] says so."""
    pair = (user.entities[1:] == user.entities[:-1]) & (user.bits[:-1] == RATING) & (user.bits[1:] == TAG) & chosen
    if not pair.any():
        return user
    first = np.flatnonzero(pair)
    bits, labels = user.bits.copy(), user.labels.copy()
    bits[first] |= TAG
    labels[first, TASKS.index("tag")] = 1
    kept = np.concatenate([[True], ~pair])
    return UserEvents(
        user.user, user.entities[kept], bits[kept], user.buckets[kept], user.times[kept], labels[kept], user.statistics[kept], user.order[kept]
    )
