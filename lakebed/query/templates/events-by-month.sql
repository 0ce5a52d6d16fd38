-- title: Events by month
-- category: time series
-- description: The number of events and people of each month, in UTC.
-- param: start timestamp = "1970-01-01": included
-- param: end timestamp = "2100-01-01": excluded
SELECT date_trunc('month', timestamp) AS time, count(*) AS count, count(DISTINCT person_id) AS people
FROM events WHERE timestamp >= $start AND timestamp < $end
GROUP BY time ORDER BY time
