"""Time buckets as integers: bucket(d) = number of thresholds <= max(1, |d|), d in whole seconds.

The reference computes trunc(float32(log(float32(max(1, |d|)))) / 0.301) at run time; float64, or another device's reciprocal, moves
some bucket edges. The edges are therefore derived once, in float32, and everyone after that only compares integers.
"""

import math

import numpy as np

TIME_BUCKETS = 129  # buckets 0..128, as many as a layer's time-bias table has entries
_LARGEST_EXACT = 2**53  # a threshold must survive JSON and JavaScript's numbers


def bucket_in_float32(seconds: int) -> int:
    """The reference's formula for one |d|, each step rounded to float32."""
    rounded = float(np.float32(max(1, seconds)))
    quotient = np.float32(math.log(rounded)) / np.float32(0.301)
    return min(max(int(quotient), 0), TIME_BUCKETS - 1)


def time_bucket_thresholds() -> list[int]:
    """Entry k-1 is the smallest |d| whose bucket is at least k; stops before a value above 2^53."""
    thresholds: list[int] = []
    for bucket in range(1, TIME_BUCKETS):
        low, high = 1, 2 * _LARGEST_EXACT
        if bucket_in_float32(high) < bucket:
            break
        while low < high:
            middle = (low + high) // 2
            if bucket_in_float32(middle) >= bucket:
                high = middle
            else:
                low = middle + 1
        if low > _LARGEST_EXACT:
            break
        thresholds.append(low)
    return thresholds
