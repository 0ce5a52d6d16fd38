-- title: Events by week
-- category: time series
-- description: The number of events and people of each week, in UTC; weeks start on Monday.
-- param: start timestamp = "1970-01-01": included
-- param: end timestamp = "2100-01-01": excluded
SELECT date_trunc('week', timestamp) AS time, count(*) AS count, count(DISTINCT person_id) AS people
FROM events WHERE timestamp >= $start AND timestamp < $end
GROUP BY time ORDER BY time
