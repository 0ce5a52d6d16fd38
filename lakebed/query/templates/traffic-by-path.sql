-- title: Traffic by path
-- category: performance
-- description: Requests by method and path, the most frequent first.
-- param: start timestamp = "1970-01-01": included
-- param: end timestamp = "2100-01-01": excluded
-- param: limit integer = 100: maximum number of rows
SELECT method, path, count(*) AS count, count(DISTINCT person_id) AS people
FROM events WHERE timestamp >= $start AND timestamp < $end AND (duration_ms IS NOT NULL OR status_code IS NOT NULL)
GROUP BY method, path ORDER BY count DESC, method, path LIMIT $limit
