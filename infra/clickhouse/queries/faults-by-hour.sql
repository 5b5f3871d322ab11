-- Which share of the records came late, twice, or could not be used, hour by hour?
-- param run_id String
-- plot late_share duplicate_share dead_letter_share
-- By the hour in which the stream said so (of a replay: of the event). `inserted`: late, and put where it belongs; `late`: older
-- than the user's window, and left out. Live runs need kafka.topics.actionOutcomes.
SELECT
    hour,
    sum(actions) AS actions,
    sum(inserted) AS inserted,
    sum(late) AS late,
    sum(duplicates) AS duplicates,
    sum(letters) AS dead_letters,
    (inserted + late) / (actions + dead_letters) AS late_share,
    duplicates / (actions + dead_letters) AS duplicate_share,
    dead_letters / (actions + dead_letters) AS dead_letter_share
FROM
(
    SELECT
        toStartOfHour(at) AS hour, count() AS actions, countIf(disposition = 'inserted') AS inserted, countIf(disposition = 'late') AS late,
        countIf(disposition = 'duplicate') AS duplicates, 0 AS letters
    FROM dispositions
    WHERE run_id = {run_id:String}
    GROUP BY hour
    UNION ALL
    SELECT toStartOfHour(published_at) AS hour, 0, 0, 0, 0, count()
    FROM dead_letters FINAL
    WHERE run_id = {run_id:String}
    GROUP BY hour
)
GROUP BY hour
ORDER BY hour
