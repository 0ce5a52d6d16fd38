-- title: Unusual days
-- category: anomalies
-- description: Days whose count lies far from the mean of all days in the range, in standard deviations.
-- param: start timestamp = "1970-01-01": included
-- param: end timestamp = "2100-01-01": excluded
-- param: at_least number = 2: standard deviations
SELECT * FROM (
    SELECT date, count, (count - avg(count) OVER ()) / nullif(stddev_pop(count) OVER (), 0) AS deviations
    FROM (SELECT CAST(timestamp AS DATE) AS date, count(*) AS count FROM events WHERE timestamp >= $start AND timestamp < $end GROUP BY date)
) WHERE abs(deviations) >= $at_least ORDER BY date
