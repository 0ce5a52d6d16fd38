-- title: Week over week
-- category: time series
-- description: Events of each week that has any, of the week before, and the change as a fraction; NULL where the week before has none.
-- param: start timestamp = "1970-01-01": included
-- param: end timestamp = "2100-01-01": excluded
WITH weeks AS (
    SELECT date_trunc('week', timestamp) AS week, count(*) AS count FROM events WHERE timestamp >= $start AND timestamp < $end GROUP BY week
)
SELECT this.week, this.count, before.count AS week_before, this.count / before.count - 1 AS change
FROM weeks AS this LEFT JOIN weeks AS before ON this.week = before.week + INTERVAL 7 DAYS
ORDER BY this.week
