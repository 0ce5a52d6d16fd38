-- title: Busiest hours of the week
-- category: time series
-- description: Events by day of the week (1 is Monday) and hour of the day, in UTC.
-- param: start timestamp = "1970-01-01": included
-- param: end timestamp = "2100-01-01": excluded
SELECT isodow(timestamp) AS weekday, hour(timestamp) AS hour, count(*) AS count
FROM events WHERE timestamp >= $start AND timestamp < $end
GROUP BY weekday, hour ORDER BY weekday, hour
