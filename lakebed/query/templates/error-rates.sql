-- title: Error rate by hour
-- category: errors
-- description: Requests of each hour, the number that failed, and the fraction that failed.
-- param: start timestamp = "1970-01-01": included
-- param: end timestamp = "2100-01-01": excluded
-- param: errors_from integer = 400: the lowest status that is an error; 500 leaves out errors of clients
SELECT date_trunc('hour', timestamp) AS time, count(*) AS count, count(*) FILTER (status_code >= $errors_from) AS errors, errors / count(*) AS error_rate
FROM events WHERE timestamp >= $start AND timestamp < $end AND (duration_ms IS NOT NULL OR status_code IS NOT NULL)
GROUP BY time ORDER BY time
