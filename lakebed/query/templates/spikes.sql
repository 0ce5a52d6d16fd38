-- title: Spikes
-- category: anomalies
-- description: Hours that exceed the hour before by more than a fraction, and have a minimum number of events.
-- param: start timestamp = "1970-01-01": included
-- param: end timestamp = "2100-01-01": excluded
-- param: more_than number = 0.5: the fraction: 0.5 is half as much again
-- param: at_least integer = 60: minimum number of events in the hour
WITH hours AS (
    SELECT date_trunc('hour', timestamp) AS time, count(*) AS count FROM events WHERE timestamp >= $start AND timestamp < $end GROUP BY time
)
SELECT this.time, this.count, before.count AS hour_before, this.count / before.count - 1 AS change
FROM hours AS this JOIN hours AS before ON this.time = before.time + INTERVAL 1 HOUR
WHERE this.count >= $at_least AND this.count / before.count - 1 > $more_than
ORDER BY this.time
